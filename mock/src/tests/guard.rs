//! What a web page can make its reader's browser send.

use super::*;

const OWN: [(&str, &str); 4] =
    [("GET", "/"), ("GET", "/mock/lines"), ("GET", "/mock/stats"), ("GET", "/mock/faults")];

fn set_faults(method: &'static str) -> Ask {
    let mut ask = Ask::new(method, "/mock/faults");
    ask.body = br#"{"kind":"hang"}"#.to_vec();
    ask
}

#[test]
fn a_name_that_was_made_to_lead_here_reads_and_changes_nothing() {
    let mock = start();
    for host in ["evil.example.com", "evil.example.com:9200", "127.0.0.1.nip.io", "x.evil.com"] {
        for (method, path) in OWN {
            let reply = Ask::new(method, path).with("host", host).send(mock.address()).unwrap();
            assert_eq!(reply.status, 403, "{method} {path} {host}");
        }
        for method in ["PUT", "POST", "DELETE"] {
            let reply = set_faults(method).with("host", host).send(mock.address()).unwrap();
            assert_eq!(reply.status, 403, "{method} {host}");
            assert!(reply.json()["error"].as_str().unwrap().contains("localhost"));
        }
    }
    let mut two = Ask::new("GET", "/mock/lines");
    two.headers.push(("host".to_owned(), "evil.example.com".to_owned()));
    assert_ne!(two.send(mock.address()).unwrap().status, 200);
    assert!(mock.faults().list().is_empty());
}

#[test]
fn it_is_itself_under_addresses_localhost_and_names_of_a_cluster() {
    let mock = start();
    let port = mock.address().port();
    for host in ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "sls", "sls.logs.svc", "endpoint"] {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            let reply = Ask::new("GET", "/").with("host", &host).send(mock.address()).unwrap();
            assert_eq!(reply.status, 200, "{host}");
            // As the page's own script asks.
            let origin = format!("http://{host}");
            let ask = set_faults("PUT").with("host", &host).with("origin", &origin);
            let ask = ask.with("sec-fetch-site", "same-origin");
            assert_eq!(ask.send(mock.address()).unwrap().status, 200, "{host}");
        }
    }
    // curl.
    assert_eq!(set_faults("POST").send(mock.address()).unwrap().status, 200);
}

#[test]
fn a_page_of_another_place_changes_nothing_and_stores_nothing() {
    let mock = start();
    let to = mock.address();
    let here = to.to_string();
    for (name, value) in [
        ("origin", "http://evil.example.com"),
        ("origin", "http://127.0.0.1:1"),
        ("origin", "http://localhost"),
        ("origin", "null"),
        ("origin", ""),
        ("origin", "http://"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for method in ["PUT", "POST", "DELETE"] {
            let ask = set_faults(method).with("host", &here).with(name, value);
            assert_eq!(ask.send(to).unwrap().status, 403, "{method} {name}: {value}");
        }
        let put = Ask::put(&group_of(&[b"forged"]), Compression::Lz4).with(name, value);
        assert_eq!(put.send(to).unwrap().status, 403, "{name}: {value}");
    }
    let read = Ask::new("GET", "/mock/lines").with("origin", "http://evil.example.com");
    assert_eq!(read.send(to).unwrap().status, 403);
    assert!(mock.faults().list().is_empty());
    assert_eq!(mock.store().line_count(), 0);

    // A link to the page.
    let link = Ask::new("GET", "/").with("host", &here).with("sec-fetch-site", "cross-site");
    assert_eq!(link.send(to).unwrap().status, 200);
}

#[test]
fn the_services_interface_is_reached_under_any_name() {
    let mock = start();
    for host in ["shop.sls.example.com", "shop.cn-hangzhou.log.aliyuncs.com", "shop.127.0.0.1"] {
        let put = Ask::put(&group_of(&[b"line"]), Compression::Lz4).with("host", host);
        assert_eq!(put.code(mock.address()), "", "{host}");
    }
}
