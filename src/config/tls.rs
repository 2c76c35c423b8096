//! Certificates and the kind of signature: the rules between their keys.

use std::path::Path;

use super::layers::{Environment, LOGTAIL_VARIABLE, variable};
use super::meaning::Meanings;
use super::mistake::{Mistake, Mistakes, quoted};
use super::{endpoint, logtail};
use crate::send::tls::{TlsError, read_tls};
use crate::send::{ClientFiles, Signature, TlsFiles};

const CA: &str = "ca_file";
const CERT: &str = "client_cert_file";
const KEY: &str = "client_key_file";

/// The files of certificates, which can be read and used. `None` is a mistake that has been noted,
/// here or when the values were read.
pub(super) fn files(meanings: &Meanings, mistakes: &mut Mistakes) -> Option<TlsFiles> {
    if [CA, CERT, KEY].iter().any(|key| mistakes.0.iter().any(|mistake| mistake.key == *key)) {
        return None;
    }
    let (client, half) = match (meanings.path(CERT), meanings.path(KEY)) {
        (Some(cert), Some(key)) => (Some(ClientFiles { cert, key }), None),
        (None, None) => (None, None),
        (Some(_), None) => (None, Some(missing(KEY, CERT))),
        (None, Some(_)) => (None, Some(missing(CERT, KEY))),
    };
    let files = TlsFiles { ca: meanings.path(CA), client };
    // Each by itself, so that all mistakes are found.
    let ca = read_tls(&TlsFiles { client: None, ..files.clone() });
    let client = read_tls(&TlsFiles { ca: None, ..files.clone() });
    let ca = ca.err().map(|error| mistake(&error, &[CA], meanings));
    let client = client.err().map(|error| mistake(&error, &[CERT, KEY], meanings));
    let found: Vec<Mistake> = [ca, client, half].into_iter().flatten().collect();
    let is_good = found.is_empty();
    found.into_iter().for_each(|mistake| mistakes.push(mistake));
    is_good.then_some(files)
}

fn mistake(error: &TlsError, keys: &[&str], meanings: &Meanings) -> Mistake {
    let path = error.path();
    let key = keys.iter().find(|key| meanings.path(key).as_deref() == path).unwrap_or(&keys[0]);
    let value = path.map(|path| path.display().to_string()).unwrap_or_default();
    Mistake::new(key, error.to_string()).value(quoted(&value)).origin(meanings.origin(key))
}

fn missing(missing: &str, given: &str) -> Mistake {
    Mistake::new(missing, format!("not set, although {given} is: set both or none"))
}

/// How requests are signed. `None` is a mistake that has been noted.
pub(super) fn signature(meanings: &Meanings, mistakes: &mut Mistakes) -> Option<Signature> {
    if meanings.text("signature").as_deref() != Some("v4") {
        return Some(Signature::V1);
    }
    if let Some(region) = meanings.text("region") {
        return Some(Signature::V4 { region });
    }
    if !mistakes.0.iter().any(|mistake| mistake.key == "region") {
        mistakes.push(Mistake::new(
            "region",
            "not set, and the endpoint's name does not tell it, but signature = v4 needs it; set \
             LOGFERRY_REGION to the region of the project, such as cn-hangzhou",
        ));
    }
    None
}

/// The region that nobody has set, and where it was found: the name of the endpoint, or that of the
/// directory of an existing logtail set-up.
pub(super) fn region(meanings: &Meanings, env: &Environment) -> Option<(String, String)> {
    if let Some(region) = meanings.endpoint().and_then(|found| endpoint::region(&found.host)) {
        return Some((region, "the endpoint's name".to_owned()));
    }
    let path = variable(env, LOGTAIL_VARIABLE)?.ok()?;
    let directory = Path::new(path).parent()?.file_name()?.to_str()?;
    let region = logtail::region_of_directory(directory)?;
    Some((region, format!("{LOGTAIL_VARIABLE}, directory name {directory}")))
}
