//! Devices that another process or machine hosts, over Burn's remote backend.

use core::fmt;
use core::str::FromStr;
use std::net::{SocketAddr, TcpListener};

use burn::tensor::Device;

use crate::error::DeviceError;

/// The environment variable that holds the token which a server asks of its clients, on both sides.
pub const TOKEN: &str = "HYBRIDNORM_TOKEN";
/// How a remote device is named.
const FORM: &str =
    "remote:HOST:PORT, or remote:HOST:PORT/N for device N of those that it hosts, counted from 0";

/// Where a device is hosted: `HOST:PORT`, and which of the devices there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    server: String,
    index: u16,
}

impl FromStr for Address {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let (server, index) = text.split_once('/').unwrap_or((text, "0"));
        let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        // An IPv6 address stands in brackets, as everywhere.
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_host = !host.is_empty()
            && !host.contains(char::is_whitespace)
            && (bare.is_some() || !host.contains(':'));
        match index.parse() {
            Ok(index) if is_host && is_port => Ok(Self {
                server: server.to_string(),
                index,
            }),
            _ => Err(DeviceError::Index {
                text: format!("remote:{text}"),
                allowed: FORM.to_string(),
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)?;
        match self.index {
            0 => Ok(()),
            index => write!(f, "/{index}"),
        }
    }
}

#[cfg(feature = "remote")]
impl Address {
    /// Connects.
    pub fn open(&self) -> Result<Device, DeviceError> {
        let mut host = burn::remote::RemoteHost::websocket(&format!("ws://{}", self.server));
        if let Ok(token) = std::env::var(TOKEN) {
            host = host.with_credential(token);
        }
        let device = Device::remote_options(&host).device_index(usize::from(self.index));
        device.init().map_err(|error| DeviceError::Remote {
            address: self.to_string(),
            message: error.to_string(),
        })
    }
}

#[cfg(not(feature = "remote"))]
impl Address {
    pub fn open(&self) -> Result<Device, DeviceError> {
        Err(DeviceError::NotCompiledIn { name: "remote" })
    }
}

/// Hosts `devices`, all of one backend, for clients that reach `listener`, until the process is asked to end. A client has to know the
/// token in [`TOKEN`], which is to be had where others than this machine can reach it. Nothing is encrypted. `ready` is
/// told the address once nothing stands in the way.
///
/// # Errors
/// When the listener is open to other machines without a token, the devices cannot be hosted together, or the listener fails.
#[cfg(feature = "remote")]
pub fn serve(
    devices: Vec<Device>,
    listener: TcpListener,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), DeviceError> {
    use burn::server::{RemoteServer, TokenAuthorizer, WebSocketTransport};

    let refused = |message: String| DeviceError::Serve { message };
    let address = listener
        .local_addr()
        .map_err(|error| refused(error.to_string()))?;
    let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
    let mut server = RemoteServer::new(devices);
    match token {
        Some(token) => {
            let authorizer = TokenAuthorizer::new(token);
            let authorizer = authorizer.map_err(|error| refused(error.to_string()))?;
            server = server.with_authorizer(authorizer);
        }
        None if address.ip().is_loopback() => {}
        None => {
            return Err(refused(format!(
                "{address} can be reached from other machines, and without a token anybody there could compute here: set {TOKEN} to a \
                 secret, the same here and for the clients"
            )));
        }
    }
    ready(address);
    let served = server.serve(WebSocketTransport::from_listener(listener));
    served.map_err(|error| refused(error.to_string()))
}

/// As it would with the Cargo feature `remote`, without which it only says so.
///
/// # Errors
/// Always.
#[cfg(not(feature = "remote"))]
pub fn serve(
    _devices: Vec<Device>,
    _listener: TcpListener,
    _ready: impl FnOnce(SocketAddr),
) -> Result<(), DeviceError> {
    Err(DeviceError::NotCompiledIn { name: "remote" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_back_as_it_is_printed() {
        for text in ["127.0.0.1:3000", "gpu-3.lan:1", "[::1]:65535", "h:3000/7"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("h:1/0".parse::<Address>().unwrap().to_string(), "h:1");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_form() {
        for text in [
            "", "h", "h:", ":3000", "h:0", "h:65536", "h:x", "h:1/", "h:1/x", "h:1/-1", "h:1/0/0",
            "a:b:1", "ws://h:1", "a b:1",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("remote:HOST:PORT/N"), "{text}: {error}");
        }
    }
}
