use std::fs;

use super::*;
use crate::tail::os::kernel::Kernel;
use crate::tail::scout::tests::saved;

/// What an opened file is a copy of, if at least `from` bytes of that were delivered.
fn original_of(catalog: &mut Catalog, path: &Path, from: u64) -> Option<Original> {
    let reader = Reader::open(&Kernel, path).unwrap();
    let stat = reader.stat().unwrap();
    let suspect =
        Suspect { os: Kernel, place: path, reader: &reader, stat, known: Known::default() };
    let (registry, originals) = (Registry::default(), Originals::default());
    let open = Open { registry: &registry, originals: &originals, reader: &|_| None };
    super::original_of(&open, catalog, &suspect, from).unwrap()
}

/// Where a copy of what is gone goes on.
fn goes_on_at(original: Option<&Original>) -> Option<u64> {
    original.map(|original| match original {
        Original::Removed(saved) => saved.offset,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_copy_is_known_by_its_name_and_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let text = "one\ntwo\nthree\n";
    fs::write(&path, text).unwrap();
    let gone = saved(&path, text, 8);
    let claim = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let mut catalog = Catalog::default();
        catalog.put_removed(gone.clone());
        let found = original_of(&mut catalog, &path, 0);
        // Another copy may hold more. Of what a copy was found for nothing is missing.
        let kept: Vec<_> = catalog.checkpoints().map(|saved| saved.rest).collect();
        assert_eq!(kept, [if found.is_some() { Some(0) } else { gone.rest }]);
        assert_eq!(original_of(&mut catalog, &path, 0).is_some(), found.is_some());
        goes_on_at(found.as_ref())
    };

    assert_eq!(claim("app.log.1", text), Some(8));
    assert_eq!(claim("app-2026-11-22.log", text), Some(8));
    assert_eq!(claim("app2.log", text), None, "another name");
    assert_eq!(claim("app.log.2", "one\n"), None, "shorter");
    assert_eq!(claim("app.log.3", "one\nTWO\nthree\n"), None, "other bytes");
}

#[test]
fn a_copy_shorter_than_what_was_delivered_is_known_by_where_readings_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let text = "one\ntwo\nthree\n";
    fs::write(&path, text).unwrap();
    let place = |offset: usize| (offset as u64, Fingerprint::of_tail(&text.as_bytes()[..offset]));
    let gone = saved(&path, text, 14);
    let claim = |text: &str, from| {
        let copy = dir.path().join("app.log.1");
        fs::write(&copy, text).unwrap();
        let mut catalog = Catalog::default();
        let trail = vec![place(4), place(8), place(14)];
        let gone = Checkpoint { head: Fingerprint::of_head(b"one\n"), trail, ..gone.clone() };
        catalog.put_removed(gone);
        goes_on_at(original_of(&mut catalog, &copy, from).as_ref())
    };

    assert_eq!(claim(text, 0), Some(14));
    assert_eq!(claim("one\ntwo\nth", 0), Some(8));
    assert_eq!(claim("one\ntwo\nth", 9), None, "less than is known of it");
    assert_eq!(claim("one\ntwi\nth", 0), Some(4), "other bytes from there on");
    assert_eq!(claim("ont\ntwo\nth", 0), None);
}

#[test]
fn a_copy_leaves_the_checkpoint_to_a_file_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "one\ntwo\n").unwrap();
    let checkpoint = saved(&path, "one\ntwo\n", 8);
    let copy = dir.path().join("app.log.1");
    fs::copy(&path, &copy).unwrap();
    let mut catalog = Catalog::default();
    catalog.put_closed(checkpoint.clone());

    let found = original_of(&mut catalog, &copy, 0);

    assert_eq!(found, Some(Original::There(Checkpoint { is_done: true, ..checkpoint.clone() })));
    assert!(catalog.get(checkpoint.device, checkpoint.inode).is_some());
}
