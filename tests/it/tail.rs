//! A large backlog.

use crate::support::Pod;

#[test]
fn a_backlog_of_100_mb_is_read_from_its_first_byte() {
    let (mut pod, log) = Pod::with_log();
    while pod.ledger.bytes() < 100 << 20 {
        pod.ledger.append(&log, 20_000);
    }
    let agent = pod.start();

    assert_eq!(pod.expect_all(), 0);
    assert!(agent.resident_bytes() < 384 << 20, "{} bytes resident", agent.resident_bytes());
    assert_eq!(agent.stop().0, 0);
}
