//! A real forward proxy: tinyproxy.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::names::with_files;
use super::observe::free_address;
use super::special::skipped;
use super::{Pod, wait_for};

/// tinyproxy, which finds `*.sls.test` at home. Ends when dropped.
pub(crate) struct ForwardProxy {
    child: Child,
    address: SocketAddr,
}

/// The endpoint's name, as a proxy or an agent in [`at_home`] finds it.
pub(crate) const HOST: &str = "sls.test";

/// An /etc/hosts with the endpoint's name in it.
pub(crate) fn at_home() -> std::collections::HashMap<&'static str, String> {
    let hosts = format!("127.0.0.1 localhost test-project.{HOST} {HOST}\n");
    [("/etc/hosts", hosts), ("/etc/nsswitch.conf", "hosts: files\n".to_owned())].into()
}

impl ForwardProxy {
    /// One that asks for a user and a password, if so wished. `None`, said aloud, where there is
    /// none.
    pub(crate) fn start(pod: &Pod, user: Option<(&str, &str)>) -> Option<Self> {
        Self::start_at(pod, free_address().parse().expect("an address"), user)
    }

    /// The same at this address.
    pub(crate) fn start_at(
        pod: &Pod,
        address: SocketAddr,
        user: Option<(&str, &str)>,
    ) -> Option<Self> {
        if !Command::new("tinyproxy").arg("-v").output().is_ok_and(|out| out.status.success()) {
            skipped("there is no tinyproxy here");
            return None;
        }
        let config = pod.path("tinyproxy.conf");
        let mut text = format!("Port {}\nListen {}\n", address.port(), address.ip());
        text += "Timeout 60\nMaxClients 50\nDisableViaHeader Yes\nLogLevel Info\n";
        if let Some((name, password)) = user {
            text += &format!("BasicAuth {name} {password}\n");
        }
        fs::write(&config, text).expect("its configuration");
        let child = with_files(pod, &at_home())
            .args(["tinyproxy", "-d", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(fs::File::create(pod.path("tinyproxy.log")).expect("its log"))
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut proxy = Self { child, address };
        let mut has_ended = false;
        wait_for("the proxy", || {
            has_ended = proxy.child.try_wait().expect("it is waited for").is_some();
            has_ended || std::net::TcpStream::connect(address).is_ok()
        });
        if has_ended {
            skipped("tinyproxy with names of its own cannot be had here");
            return None;
        }
        Some(proxy)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
