//! The devices a run can compute on: one table of names, Cargo features and constructors.

use core::fmt;
use core::str::FromStr;

use burn::tensor::Device;

/// A row of [`DEVICES`].
#[derive(Debug)]
pub struct DeviceRow {
    /// The name, as it is typed, and Burn's name of the Cargo feature that compiles it in.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// Whether there can be several, told apart by a number.
    pub numbered: bool,
    /// `None` where the feature is not compiled in.
    open: Option<fn(usize) -> Result<Device, DeviceError>>,
}

impl DeviceRow {
    /// Whether this build has the device's feature.
    pub fn is_compiled_in(&self) -> bool {
        self.open.is_some()
    }
}

/// The constructor of a row, if its feature is compiled in.
macro_rules! compiled_in {
    ($feature:literal, $open:expr) => {{
        #[cfg(feature = $feature)]
        let open: Option<fn(usize) -> Result<Device, DeviceError>> = Some($open);
        #[cfg(not(feature = $feature))]
        let open: Option<fn(usize) -> Result<Device, DeviceError>> = None;
        open
    }};
}

/// Every device, the best first: the first one compiled in is the default.
pub static DEVICES: &[DeviceRow] = &[
    DeviceRow {
        name: "cuda",
        summary: "an NVIDIA GPU",
        numbered: true,
        open: compiled_in!("cuda", |index| {
            cuda_driver()?;
            Ok(Device::cuda(index))
        }),
    },
    DeviceRow {
        name: "wgpu",
        summary: "any GPU, through WebGPU",
        numbered: false,
        open: compiled_in!("wgpu", |_| Ok(Device::wgpu(
            burn::tensor::DeviceKind::DefaultDevice
        ))),
    },
    DeviceRow {
        name: "flex",
        summary: "the CPU",
        numbered: false,
        open: compiled_in!("flex", |_| Ok(Device::flex())),
    },
    DeviceRow {
        name: "ndarray",
        summary: "the CPU, through ndarray (deprecated by Burn)",
        numbered: false,
        open: compiled_in!("ndarray", |_| {
            // Kept as an independent witness for tests.
            #[allow(deprecated)]
            let device = Device::ndarray();
            Ok(device)
        }),
    },
];

/// Why a device cannot be used. Each message is one line and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No row has the name.
    #[error(
        "device \"{name}\" is not known: {hint}; this build has {}",
        compiled_in()
    )]
    Unknown {
        /// What was typed.
        name: String,
        /// The nearest match, or all names.
        hint: String,
    },
    /// The number after the colon is not one, or the device takes none.
    #[error("device \"{text}\" is not allowed: {allowed}")]
    Index {
        /// What was typed.
        text: String,
        /// What would have been accepted.
        allowed: String,
    },
    /// The Cargo feature is missing.
    #[error(
        "device {name} is not compiled in: rebuild with --features {name} (this build has {})",
        compiled_in()
    )]
    NotCompiledIn {
        /// The device, and the feature.
        name: &'static str,
    },
    /// The operating system has no driver for it.
    #[error("device {name} needs {library}, which was not found: install the {driver} driver")]
    NoDriver {
        /// The device.
        name: &'static str,
        /// The library that was looked for.
        library: &'static str,
        /// What brings it.
        driver: &'static str,
    },
    /// The build has no device at all.
    #[error("no device is compiled in: rebuild with --features flex")]
    None,
}

/// A device by name: `flex`, `cuda`, `cuda:1`. It need not be compiled in until it is [opened](Self::open).
///
/// ```
/// use hybridnorm_train::device::DeviceSpec;
/// assert_eq!("cuda:1".parse::<DeviceSpec>()?.to_string(), "cuda:1");
/// assert!("cude".parse::<DeviceSpec>().unwrap_err().to_string().contains("did you mean \"cuda\"?"));
/// # Ok::<(), hybridnorm_train::device::DeviceError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct DeviceSpec {
    row: &'static DeviceRow,
    index: usize,
}

impl DeviceSpec {
    /// The best device that is compiled in.
    ///
    /// # Errors
    /// When none is.
    pub fn best() -> Result<Self, DeviceError> {
        let row = DEVICES.iter().find(|row| row.is_compiled_in());
        row.map(|row| Self { row, index: 0 })
            .ok_or(DeviceError::None)
    }

    /// Its row in the table.
    pub fn row(&self) -> &'static DeviceRow {
        self.row
    }

    /// The device itself, without autodiff.
    ///
    /// # Errors
    /// When it is not compiled in, or its driver is not installed.
    pub fn open(&self) -> Result<Device, DeviceError> {
        let name = self.row.name;
        let open = self.row.open.ok_or(DeviceError::NotCompiledIn { name })?;
        open(self.index)
    }
}

impl PartialEq for DeviceSpec {
    fn eq(&self, other: &Self) -> bool {
        self.row.name == other.row.name && self.index == other.index
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row.name)?;
        if self.index > 0 {
            write!(f, ":{}", self.index)?;
        }
        Ok(())
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index)),
            None => (text, None),
        };
        let row = DEVICES
            .iter()
            .find(|row| row.name == name)
            .ok_or_else(|| unknown(name))?;
        let refused = |allowed: String| DeviceError::Index {
            text: text.to_string(),
            allowed,
        };
        let index = match index {
            None => 0,
            Some(_) if !row.numbered => return Err(refused(format!("{name} takes no number"))),
            Some(index) => index
                .parse()
                .map_err(|_| refused(format!("{name} or {name}:N, N counted from 0")))?,
        };
        Ok(Self { row, index })
    }
}

fn unknown(name: &str) -> DeviceError {
    let nearest = DEVICES
        .iter()
        .map(|row| (strsim::jaro_winkler(row.name, name), row.name))
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((_, nearest)) => format!("did you mean \"{nearest}\"?"),
        None => {
            let names: Vec<&str> = DEVICES.iter().map(|row| row.name).collect();
            format!("one of {}", names.join(", "))
        }
    };
    DeviceError::Unknown {
        name: name.to_string(),
        hint,
    }
}

/// The names of the devices in this build.
pub fn compiled_in() -> String {
    let names: Vec<&str> = DEVICES
        .iter()
        .filter(|row| row.is_compiled_in())
        .map(|row| row.name)
        .collect();
    match names.is_empty() {
        true => "none".to_string(),
        false => names.join(", "),
    }
}

/// Looks for NVIDIA's driver library, because Burn panics without it.
#[cfg(feature = "cuda")]
fn cuda_driver() -> Result<(), DeviceError> {
    let library = if cfg!(windows) {
        "nvcuda.dll"
    } else {
        "libcuda.so.1"
    };
    // SAFETY: NVIDIA's driver library is made to be loaded at run time; CUDA programs do the same right after.
    match unsafe { libloading::Library::new(library) } {
        Ok(_) => Ok(()),
        Err(_) => Err(DeviceError::NoDriver {
            name: "cuda",
            library,
            driver: "NVIDIA",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_back_as_it_is_printed() {
        for row in DEVICES {
            let spec: DeviceSpec = row.name.parse().unwrap();
            assert_eq!(spec.to_string(), row.name);
            let second = format!("{}:1", row.name).parse::<DeviceSpec>();
            assert_eq!(second.is_ok(), row.numbered, "{}", row.name);
        }
        assert_eq!("cuda:0".parse::<DeviceSpec>().unwrap().to_string(), "cuda");
    }

    #[test]
    fn refusals_say_what_to_do() {
        let refusal = |text: &str| text.parse::<DeviceSpec>().unwrap_err().to_string();
        assert!(refusal("felx").contains("did you mean \"flex\"?"));
        assert!(refusal("zzz").contains("one of cuda, wgpu, flex, ndarray"));
        assert!(refusal("cuda:x").contains("cuda or cuda:N"));
        assert!(refusal("flex:1").contains("flex takes no number"));
    }

    #[test]
    fn a_missing_feature_is_named() {
        for row in DEVICES.iter().filter(|row| !row.is_compiled_in()) {
            let error = DeviceSpec { row, index: 0 }.open().unwrap_err();
            let rebuild = format!("rebuild with --features {}", row.name);
            assert!(error.to_string().contains(&rebuild), "{error}");
        }
    }

    #[test]
    fn the_default_is_the_first_row_compiled_in() {
        match DeviceSpec::best() {
            Ok(spec) => assert!(spec.row().is_compiled_in()),
            Err(error) => assert_eq!(error, DeviceError::None),
        }
    }
}
