//! Bodies of answers that somebody on the way has compressed, although nobody asked for it.
//!
//! Pure. Requests ask for `identity`; gateways that compress errors all the same use gzip, or the
//! `deflate` of RFC 9110 in either of its two readings. What cannot be decoded, and what has a coding
//! that is not known here, stays as it is: then it says nothing, as before.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// What every gzip member begins with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// More codings, one over the other, are nobody's mistake.
const CODINGS_MAX: usize = 3;

/// The body without its codings, as far as it can be decoded, at most `bytes_max` of it. `codings` is
/// the header `Content-Encoding`; one that was lost on the way is told by the first bytes.
#[must_use]
pub fn decoded(codings: Option<&str>, body: Vec<u8>, bytes_max: usize) -> Vec<u8> {
    let codings = codings.unwrap_or_default().split(',').map(str::trim);
    let codings: Vec<&str> = codings.filter(|name| !name.is_empty()).collect();
    // The last one was applied last.
    let body = codings.iter().rev().take(CODINGS_MAX).fold(body, |body, coding| {
        match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => {
                or_as_it_was(body, |body| read(MultiGzDecoder::new(body), bytes_max))
            }
            "deflate" => or_as_it_was(body, |body| {
                let zlib = read(ZlibDecoder::new(body), bytes_max);
                if zlib.is_empty() && !body.starts_with(b"{") {
                    read(DeflateDecoder::new(body), bytes_max)
                } else {
                    zlib
                }
            }),
            _ => body,
        }
    });
    if body.starts_with(&GZIP_MAGIC) {
        return or_as_it_was(body, |body| read(MultiGzDecoder::new(body), bytes_max));
    }
    body
}

fn or_as_it_was(body: Vec<u8>, decode: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let decoded = decode(&body);
    if decoded.is_empty() { body } else { decoded }
}

/// What can be read before the first error: a body that was cut off still says what it can.
fn read(decoder: impl Read, bytes_max: usize) -> Vec<u8> {
    let mut decoded = Vec::new();
    let _ = decoder.take(bytes_max as u64).read_to_end(&mut decoded);
    decoded
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = br#"{"errorCode":"PostBodyTooLarge","errorMessage":"too large"}"#;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_a_gateway_may_send_is_read() {
        for (codings, body) in [
            (None, TEXT.to_vec()),
            (Some("identity"), TEXT.to_vec()),
            (Some("gzip"), gzip(TEXT)),
            (Some("X-GZIP"), gzip(TEXT)),
            (None, gzip(TEXT)),
            (Some("identity"), gzip(TEXT)),
            (Some("deflate"), zlib(TEXT)),
            (Some("deflate"), deflate(TEXT)),
            (Some("deflate, gzip"), gzip(&zlib(TEXT))),
            (Some(" gzip , "), gzip(TEXT)),
            // Said, and not done.
            (Some("gzip"), TEXT.to_vec()),
            (Some("deflate"), TEXT.to_vec()),
            // Not known here.
            (Some("br"), TEXT.to_vec()),
        ] {
            let body = decoded(codings, body, 1000);
            assert_eq!(
                String::from_utf8_lossy(&body),
                String::from_utf8_lossy(TEXT),
                "{codings:?}"
            );
        }
    }

    #[test]
    fn what_grows_without_bound_is_cut() {
        let bomb = gzip(&vec![b' '; 10 << 20]);

        assert_eq!(decoded(Some("gzip"), bomb.clone(), 4096).len(), 4096);
        assert_eq!(decoded(Some("gzip, gzip"), gzip(&bomb), 64 << 10).len(), 64 << 10);
    }

    #[test]
    fn what_was_cut_off_says_what_it_can() {
        let whole = gzip(&TEXT.repeat(100));

        let body = decoded(Some("gzip"), whole[..whole.len() - 8].to_vec(), 64 << 10);

        assert!(body.starts_with(TEXT));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_body(
            codings in "(gzip|deflate|br|identity|, ){0,6}",
            mut body in prop::collection::vec(any::<u8>(), 0..200),
            is_gzip: bool,
        ) {
            if is_gzip {
                body.splice(0..0, [0x1f, 0x8b, 8, 0]);
            }
            prop_assert!(decoded(Some(&codings), body, 1000).len() <= 1000);
        }
    }
}
