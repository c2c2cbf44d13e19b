//! Two device servers, each a process of its own, on this machine's loopback.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use hybridnorm_train::data::{DataError, StepBatch};
use hybridnorm_train::device::DeviceSpec;
use hybridnorm_train::engine::{BatchSource, TrainError, TrainSummary, train};
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny;

/// A process that hosts devices, until it is dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(devices: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_hybridnorm-train"))
            .args(["serve-device", "--port", "0", "--device", devices])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut told = BufReader::new(process.stdout.take().unwrap());
        told.read_line(&mut line).unwrap();
        // The rest is a log that nobody reads, but that has to go somewhere.
        std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        let address = line.trim().rsplit(' ').next().unwrap().to_string();
        assert!(line.starts_with("serving flex"), "{line}");
        Self { process, address }
    }

    fn device(&self, index: usize) -> Device {
        let name = format!("remote:{}/{index}", self.address);
        name.parse::<DeviceSpec>().unwrap().open().unwrap()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn on(config: &RunConfig, dir: &TempDir, devices: &[Device]) -> Result<TrainSummary, TrainError> {
    let mut request = tiny::request(config.clone(), dir.path(), &devices[0], false);
    request.replicas = devices[1..].to_vec();
    train(request)
}

#[test]
fn two_servers_train_data_parallel_as_one_device_that_accumulates() {
    let (a, b) = (Server::start("flex"), Server::start("flex"));
    let both = [a.device(0), b.device(0)];
    for config in [tiny::config(4, 2), tiny::sparse(4, 2)] {
        let run = |devices: &[Device]| {
            let dir = TempDir::new().unwrap();
            on(&config, &dir, devices).unwrap();
            let model = tiny::hash(dir.path(), 4, "model.safetensors");
            (tiny::steps(dir.path()), model)
        };
        let two = run(&both);
        assert_eq!(two, run(&both[..1]));
        assert_eq!(two, run(&both));
        // The local device has kernels of its own, which add up in another order.
        for (remote, local) in two.0.iter().zip(run(&[Device::flex()]).0) {
            let near = |a: u64, b: u64| (f64::from_bits(a) / f64::from_bits(b) - 1.0).abs();
            assert!(near(remote.1, local.1) < 1e-5, "loss of step {}", local.0);
            assert!(near(remote.2, local.2) < 1e-4, "norm of step {}", local.0);
        }
    }
}

#[test]
fn devices_of_one_server_and_of_this_process_train_together() {
    let server = Server::start("flex,flex");
    let config = tiny::config(2, 1);
    let dir = TempDir::new().unwrap();
    let devices = [
        Device::flex(),
        server.device(0),
        server.device(1),
        Device::flex(),
    ];
    on(&config, &dir, &devices).unwrap();
    let alone = TempDir::new().unwrap();
    on(&config, &alone, &devices[..1]).unwrap();
    let loss = |dir: &TempDir| f64::from_bits(tiny::steps(dir.path())[1].1);
    assert!((loss(&dir) / loss(&alone) - 1.0).abs() < 1e-5);
}

/// Kills a server when the batch of the third step is asked for.
struct Fatal {
    inner: Arc<dyn BatchSource>,
    victim: Mutex<Server>,
}

impl BatchSource for Fatal {
    fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        if step == 2 {
            self.victim.lock().unwrap().kill();
        }
        self.inner.batch(step)
    }
}

#[test]
fn a_server_that_dies_ends_the_run_with_an_error_and_a_checkpoint() {
    for victim_is_first in [false, true] {
        let (survivor, victim) = (Server::start("flex"), Server::start("flex"));
        let mut devices = [survivor.device(0), victim.device(0)];
        if victim_is_first {
            devices.reverse();
        }
        let dir = TempDir::new().unwrap();
        let config = tiny::config(8, 2);
        let mut request = tiny::request(config.clone(), dir.path(), &devices[0], false);
        request.replicas = devices[1..].to_vec();
        request.batches = Arc::new(Fatal {
            inner: request.batches.clone(),
            victim: Mutex::new(victim),
        });
        let error = train(request).unwrap_err();
        assert!(error.to_string().contains("step 3"), "{error}");
        // Its checkpoints are this machine's, so that it goes on without any server.
        let rest = tiny::request(config, dir.path(), &Device::flex(), true);
        let rest = train(rest).unwrap();
        assert_eq!((rest.resumed_from, rest.steps), (Some(2), 8));
    }
}

#[test]
fn a_device_that_is_not_hosted_is_an_error_in_one_line() {
    let server = Server::start("flex");
    let refusal = |name: String| {
        let error = name.parse::<DeviceSpec>().unwrap().open().unwrap_err();
        error.to_string()
    };
    let beyond = refusal(format!("remote:{}/1", server.address));
    assert!(beyond.contains("hosts only 1 device"), "{beyond}");
    let address = server.address.clone();
    drop(server);
    let gone = refusal(format!("remote:{address}"));
    assert!(
        gone.contains(&address) && gone.contains("serve-device"),
        "{gone}"
    );
}
