//! The committed protobuf types are what the messages' description generates.

use std::path::Path;

#[test]
fn generated_protobuf_types_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["sls_logs.proto"], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new().out_dir(out.path()).compile_fds(descriptors).unwrap();
    let fresh = std::fs::read_to_string(out.path().join("sls_logs.rs")).unwrap();
    let committed = root.join("src/sls_logs.rs");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&committed, &fresh).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&committed).unwrap(),
        fresh,
        "wire/src/sls_logs.rs is not what wire/proto/sls_logs.proto generates: UPDATE_EXPECT=1 cargo test"
    );
}
