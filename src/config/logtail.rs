//! What an existing logtail set-up says: the file that `ALIYUN_LOGTAIL_CONFIG` names.
//!
//! Pure: text in, settings out. Keys that mean nothing to us are that agent's and are ignored.
//! Unlike there, limits have no hidden least value: any value in range is obeyed.

use config::ValueKind;
use serde_json::Value;

/// The limits that have the same name and meaning here.
const LIMITS: [&str; 4] =
    ["cpu_usage_limit", "mem_usage_limit", "max_bytes_per_sec", "send_request_concurrency"];

/// Settings out of the text of an `ilogtail_config.json`: keys of ours, and values.
///
/// # Errors
/// Where it stops being JSON, or that it is no object.
pub(super) fn from_json(text: &str) -> Result<Vec<(&'static str, ValueKind)>, String> {
    let json: Value = serde_json::from_str(text)
        .map_err(|e| format!("no JSON at line {}, column {}", e.line(), e.column()))?;
    let Value::Object(json) = json else { return Err("the JSON is no object".to_owned()) };

    let endpoint = json
        .get("data_server_list")
        .and_then(|list| list.get(0)?.get("endpoint")?.as_str())
        .or_else(|| json.get("data_servers")?.get(0)?.get("endpoint_list")?.get(0)?.as_str())
        .map(str::trim)
        .filter(|endpoint| !endpoint.is_empty());
    let port_is_443 = json.get("data_server_port").is_some_and(|port| {
        port.as_u64() == Some(443) || port.as_str().is_some_and(|port| port.trim() == "443")
    });
    let endpoint = endpoint.map(|endpoint| {
        // A bare host name means https as well; the port only says so in as many words.
        if port_is_443 && !endpoint.contains("://") {
            format!("https://{endpoint}")
        } else {
            endpoint.to_owned()
        }
    });
    let limits = LIMITS.iter().filter_map(|&name| Some((name, value(json.get(name)?)?)));
    Ok(endpoint
        .map(|text| ("endpoint", ValueKind::String(text)))
        .into_iter()
        .chain(limits)
        .collect())
}

/// The endpoint of the directory `<region>-<network_type>` that the file would be in, for when it
/// is not: the network type may be joined with `-` or `_`, in any letter case, and is the private
/// network when left out. `None` when the name does not look like a region.
pub(super) fn endpoint_of_directory(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let (region, network) = split(&name);
    is_region(region).then(|| match network {
        "acceleration" => "log-global.aliyuncs.com".to_owned(),
        "internet" => format!("{region}.log.aliyuncs.com"),
        "inner" => format!("{region}-share.log.aliyuncs.com"),
        _ => format!("{region}-intranet.log.aliyuncs.com"),
    })
}

/// The region of such a directory.
pub(super) fn region_of_directory(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let (region, _) = split(&name);
    is_region(region).then(|| region.to_owned())
}

/// Region and network type.
fn split(name: &str) -> (&str, &str) {
    ["internet", "intranet", "inner", "acceleration"]
        .into_iter()
        .find_map(|network| Some((name.strip_suffix(network)?.strip_suffix(['-', '_'])?, network)))
        .unwrap_or((name, ""))
}

/// `cn-hangzhou`, `ap-southeast-1`, `cn-shanghai-finance-1`.
pub(super) fn is_region(text: &str) -> bool {
    let mut parts = text.split('-');
    let is_first = |part: &str| part.len() >= 2 && part.bytes().all(|b| b.is_ascii_lowercase());
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    parts.next().is_some_and(is_first)
        && text.contains('-')
        && text.len() <= 48
        && parts.all(is_part)
}

fn value(json: &Value) -> Option<ValueKind> {
    match json {
        Value::Null => None,
        Value::Bool(on) => Some((*on).into()),
        Value::String(text) => Some(text.clone().into()),
        Value::Number(number) => Some(match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(float)) => float.into(),
            (None, None) => number.to_string().into(),
        }),
        Value::Array(_) => Some(ValueKind::Array(Vec::new())),
        Value::Object(_) => Some(ValueKind::Table(config::Map::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_name_gives_region_and_network() {
        for (name, endpoint) in [
            ("cn-hangzhou-internet", "cn-hangzhou.log.aliyuncs.com"),
            ("cn-hangzhou_internet", "cn-hangzhou.log.aliyuncs.com"),
            ("cn-hangzhou-Internet", "cn-hangzhou.log.aliyuncs.com"),
            ("cn-hangzhou-intranet", "cn-hangzhou-intranet.log.aliyuncs.com"),
            ("cn-hangzhou_INTRANET", "cn-hangzhou-intranet.log.aliyuncs.com"),
            ("cn-hangzhou-inner", "cn-hangzhou-share.log.aliyuncs.com"),
            ("ap-southeast-1_inner", "ap-southeast-1-share.log.aliyuncs.com"),
            ("us-west-1-acceleration", "log-global.aliyuncs.com"),
            ("us-west-1_Acceleration", "log-global.aliyuncs.com"),
            ("cn-shanghai-finance-1", "cn-shanghai-finance-1-intranet.log.aliyuncs.com"),
        ] {
            assert_eq!(endpoint_of_directory(name).as_deref(), Some(endpoint), "{name}");
        }
    }

    #[test]
    fn the_region_is_the_same_for_every_network() {
        for name in ["cn-hangzhou", "cn-hangzhou-internet", "CN-Hangzhou_acceleration"] {
            assert_eq!(region_of_directory(name).as_deref(), Some("cn-hangzhou"), "{name}");
        }
        assert_eq!(region_of_directory("conf"), None);
    }

    #[test]
    fn a_directory_that_names_no_region_gives_nothing() {
        for name in ["", "conf", "internet", "-internet", "tmp.abc-1", "a-b", "cn-", "cn hz-1"] {
            assert_eq!(endpoint_of_directory(name), None, "{name}");
        }
    }

    #[test]
    fn endpoint_and_limits_are_taken_and_the_rest_is_ignored() {
        let found = from_json(
            r#"{"config_server_address": "http://logtail.x", "data_server_list":
            [{"cluster": "cn-hangzhou", "endpoint": "cn-hangzhou-intranet.log.aliyuncs.com"}],
            "cpu_usage_limit": 0.4, "mem_usage_limit": 100, "max_bytes_per_sec": 20971520,
            "send_request_concurrency": "4", "buffer_file_num": 25}"#,
        );

        let expected: Vec<(&str, ValueKind)> = vec![
            ("endpoint", "cn-hangzhou-intranet.log.aliyuncs.com".into()),
            ("cpu_usage_limit", 0.4.into()),
            ("mem_usage_limit", 100_i64.into()),
            ("max_bytes_per_sec", 20_971_520_i64.into()),
            ("send_request_concurrency", "4".into()),
        ];
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn the_newer_names_and_the_port_are_understood() {
        let found = from_json(
            r#"{"data_servers": [{"region": "r", "endpoint_list": ["a.example.com", "b"]}],
            "data_server_port": 443}"#,
        );
        assert_eq!(found, Ok(vec![("endpoint", "https://a.example.com".into())]));
        assert_eq!(from_json(r#"{"data_servers": 3, "data_server_list": [7]}"#), Ok(vec![]));
    }

    #[test]
    fn what_is_no_json_is_said_to_be_none() {
        assert_eq!(from_json("{\n  x"), Err("no JSON at line 2, column 3".to_owned()));
        assert_eq!(from_json("[]"), Err("the JSON is no object".to_owned()));
        assert!(from_json(&"[".repeat(100_000)).is_err());
    }
}
