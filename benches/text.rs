//! Log lines as services write them: a time, a level, a place, a request and its fields. The same
//! ones in every run.

use fastrand::Rng;

const LEVELS: [&str; 8] = ["INFO", "INFO", "INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR"];
const METHODS: [&str; 4] = ["GET", "GET", "POST", "PUT"];
const ROUTES: [&str; 8] = [
    "/api/v1/orders",
    "/api/v1/orders/items",
    "/api/v1/users/login",
    "/api/v1/users/profile",
    "/api/v1/payments",
    "/healthz",
    "/api/v2/search",
    "/static/app.js",
];
const ENDINGS: [&str; 4] = [
    "request handled",
    "request handled from the cache of this node",
    "upstream answered after one retry",
    "connection to the database was taken from the pool",
];

/// `bytes` or a little less of whole lines. Each has `line_bytes` bytes with its newline, or as many
/// as such a line needs (some 150) if that is 0.
pub(crate) fn lines(bytes: usize, line_bytes: usize) -> Vec<u8> {
    let mut rng = Rng::with_seed(1);
    let mut text = Vec::with_capacity(bytes);
    let mut millis = 0_u64;
    loop {
        millis += rng.u64(0..20);
        let mut line = line(&mut rng, millis);
        while line.len() + 1 < line_bytes {
            line.push_str(" | ");
            line.push_str(&self::line(&mut rng, millis));
        }
        if line_bytes > 0 {
            line.truncate(line_bytes - 1);
        }
        if text.len() + line.len() + 1 > bytes {
            return text;
        }
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
}

fn line(rng: &mut Rng, millis: u64) -> String {
    let (second, minute) = (millis / 1000 % 60, millis / 60_000 % 60);
    let (level, method) = (rng.choice(LEVELS), rng.choice(METHODS));
    let (route, ending) = (rng.choice(ROUTES), rng.choice(ENDINGS));
    let status = if rng.u8(..) < 8 { 503 } else { 200 };
    format!(
        "2026-01-01T08:{minute:02}:{second:02}.{:03}Z {} [worker-{}] {} {}?user={} status={status} \
         took={}ms trace={:08x} {}",
        millis % 1000,
        level.unwrap_or(""),
        rng.u8(0..8),
        method.unwrap_or(""),
        route.unwrap_or(""),
        rng.u32(1000..9000),
        rng.u32(1..300),
        rng.u32(..),
        ending.unwrap_or(""),
    )
}
