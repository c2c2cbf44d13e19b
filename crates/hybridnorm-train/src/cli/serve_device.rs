//! `serve-device`: hosts devices for other processes and machines.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use clap::Args;
use hybridnorm_device::{DeviceSpec, serve};

use crate::error::Error;

/// The flags of `serve-device`.
#[derive(Debug, Clone, Args)]
pub struct ServeDeviceFlags {
    /// The devices to host, all of one kind; a client names the second one remote:HOST:PORT/1
    #[arg(
        long = "device",
        value_name = "NAME,NAME",
        value_delimiter = ',',
        required = true
    )]
    devices: Vec<DeviceSpec>,
    /// The TCP port to listen on; 0 takes a free one and prints it
    #[arg(long, value_name = "N", default_value_t = 3000)]
    port: u16,
    /// The address to listen on. All but this machine's own ask for a secret in HYBRIDNORM_TOKEN
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
}

pub(super) fn run(flags: &ServeDeviceFlags, out: &mut impl Write) -> Result<(), Error> {
    let devices = flags.devices.iter().map(DeviceSpec::open);
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = flags.devices.iter().map(DeviceSpec::to_string).collect();
    let place = (flags.listen, flags.port);
    let refused = |error: std::io::Error| {
        Error::Usage(format!(
            "cannot listen on {} port {}: {error}",
            place.0, place.1
        ))
    };
    let listener = TcpListener::bind(place).map_err(refused)?;
    let mut told = Ok(());
    serve(devices, listener, |address| {
        told =
            writeln!(out, "serving {} on {address}", names.join(", ")).and_then(|()| out.flush());
    })?;
    told.map_err(Error::Output)
}
