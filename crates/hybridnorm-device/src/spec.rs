//! A device by name: parsed, printed, opened.

use core::fmt;
use core::str::FromStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::Device;

use crate::error::DeviceError;
use crate::found::is_software;
use crate::remote::Address;
use crate::table::{Backend, DEVICES, DeviceRow};

/// A device by name: `flex`, `cuda`, `cuda:1`, `remote:10.0.0.2:3000`. It need not be compiled in until it is [opened](Self::open).
///
/// ```
/// use hybridnorm_device::DeviceSpec;
/// assert_eq!("cuda:1".parse::<DeviceSpec>()?.to_string(), "cuda:1");
/// assert!("cude".parse::<DeviceSpec>().unwrap_err().to_string().contains("did you mean \"cuda\"?"));
/// # Ok::<(), hybridnorm_device::DeviceError>(())
/// ```
#[derive(Debug, Clone)]
pub struct DeviceSpec {
    row: &'static DeviceRow,
    place: Place,
}

/// Which of its row's devices it is.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    Index(usize),
    Address(Address),
}

impl DeviceSpec {
    /// The best device that is compiled in and on this machine. A software adapter counts only where nothing else does: the CPU's own
    /// backend is faster.
    ///
    /// # Errors
    /// When there is none.
    pub fn best() -> Result<Self, DeviceError> {
        let mut software = None;
        for row in DEVICES {
            let spec = Self::new(row, 0);
            let Ok(device) = spec.open() else { continue };
            if !row.compiles_kernels || !is_software(&device) {
                return Ok(spec);
            }
            software.get_or_insert(spec);
        }
        software.ok_or(DeviceError::None)
    }

    /// Its row in the table.
    pub fn row(&self) -> &'static DeviceRow {
        self.row
    }

    /// Its number among its row's devices; `None` for one that another process hosts.
    pub fn index(&self) -> Option<usize> {
        match &self.place {
            Place::Index(index) => Some(*index),
            Place::Address(_) => None,
        }
    }

    /// The device of `row` with this index; it need not be there.
    pub(crate) fn new(row: &'static DeviceRow, index: usize) -> Self {
        let place = Place::Index(index);
        Self { row, place }
    }

    /// The device itself, without autodiff.
    ///
    /// # Errors
    /// When it is not compiled in, this machine has no such adapter, its driver fails, or no server answers.
    pub fn open(&self) -> Result<Device, DeviceError> {
        let row = self.row;
        let (name, needs) = (row.name, row.needs);
        let index = match &self.place {
            Place::Index(index) => *index,
            Place::Address(address) => return self.guarded(|| address.open())?,
        };
        let Some(Backend { open, count }) = &row.backend else {
            return Err(match row.is_compiled_in() {
                true => DeviceError::NoAdapter { name, needs },
                false => DeviceError::NotCompiledIn { name },
            });
        };
        match self.guarded(count)? {
            0 => return Err(DeviceError::NoAdapter { name, needs }),
            // An unnumbered device stands for the adapter its runtime prefers, however many there are.
            count if row.numbered && index >= count => {
                return Err(DeviceError::NoSuchIndex { name, index, count });
            }
            _ => {}
        }
        self.guarded(|| {
            let device = open(index);
            crate::found::touch(&device);
            device
        })
    }

    /// Turns a driver's panic into an error.
    fn guarded<T>(&self, ask: impl FnOnce() -> T) -> Result<T, DeviceError> {
        catch_unwind(AssertUnwindSafe(ask)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("the message stands above");
            DeviceError::Broken {
                name: self.row.name,
                message: text.split_whitespace().collect::<Vec<_>>().join(" "),
                needs: self.row.needs,
            }
        })
    }
}

impl PartialEq for DeviceSpec {
    fn eq(&self, other: &Self) -> bool {
        self.row.name == other.row.name && self.place == other.place
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row.name)?;
        match &self.place {
            Place::Index(0) => Ok(()),
            Place::Index(index) => write!(f, ":{index}"),
            Place::Address(address) => write!(f, ":{address}"),
        }
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
        if row.addressed {
            let place = Place::Address(index.unwrap_or_default().parse()?);
            return Ok(Self { row, place });
        }
        let index = match index {
            None => 0,
            Some(_) if !row.numbered => return Err(refused(format!("{name} takes no number"))),
            Some(index) => index
                .parse::<u16>()
                .map_err(|_| refused(format!("{name} or {name}:N, N counted from 0")))?
                .into(),
        };
        Ok(Self::new(row, index))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_back_as_it_is_printed() {
        let address = "remote:127.0.0.1:3000/1";
        let remote: DeviceSpec = address.parse().unwrap();
        assert_eq!(remote.to_string(), address);
        assert!(remote.row().addressed);
        assert_ne!(remote, "remote:127.0.0.1:3000".parse().unwrap());
        for row in DEVICES.iter().filter(|row| !row.addressed) {
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
        assert!(
            refusal("zzz")
                .contains("one of cuda, rocm, metal, vulkan, wgpu, webgpu, flex, cpu, ndarray")
        );
        for text in ["cuda:x", "cuda:-1", "cuda:", "cuda:65536", "cuda:1:1"] {
            assert!(refusal(text).contains("cuda or cuda:N"), "{text}");
        }
        assert!(refusal("flex:1").contains("flex takes no number"));
        for text in ["remote", "remote:", "remote:3000"] {
            assert!(refusal(text).contains("remote:HOST:PORT"), "{text}");
        }
        assert!(refusal("").contains("one of"));
    }

    #[test]
    fn a_missing_feature_is_named() {
        for row in DEVICES.iter().filter(|row| !row.is_compiled_in()) {
            let error = DeviceSpec::new(row, 0).open().unwrap_err();
            let rebuild = format!("rebuild with --features {}", row.name);
            assert!(error.to_string().contains(&rebuild), "{error}");
        }
    }

    #[test]
    fn the_default_is_compiled_in_and_there() {
        match DeviceSpec::best() {
            Ok(spec) => assert!(spec.row().is_compiled_in() && spec.open().is_ok()),
            Err(error) => assert_eq!(error, DeviceError::None),
        }
    }

    fn row(open: fn(usize) -> Device, count: fn() -> usize) -> DeviceSpec {
        let row = DeviceRow {
            name: "fake",
            summary: "",
            numbered: true,
            addressed: false,
            compiles_kernels: true,
            in_host_memory: false,
            needs: "a fake driver",
            tested: "",
            float_types: "",
            limits: "",
            backend: Some(Backend { open, count }),
        };
        DeviceSpec::new(Box::leak(Box::new(row)), 1)
    }

    /// What Burn does without a driver, with too few GPUs and with a driver that fails.
    #[test]
    fn absent_and_broken_drivers_are_errors() {
        let none = row(|_| unreachable!("never opened"), || 0)
            .open()
            .unwrap_err();
        assert!(
            none.to_string().contains("it needs a fake driver"),
            "{none}"
        );
        let few = row(|_| unreachable!("never opened"), || 1)
            .open()
            .unwrap_err();
        assert_eq!(
            few.to_string(),
            "device fake:1 is not there: this machine has 1, counted from fake:0"
        );
        let broken = row(
            |_| panic!("called `Result::unwrap()`\n on an `Err` value: RecvError"),
            || 2,
        )
        .open()
        .unwrap_err();
        assert!(
            broken
                .to_string()
                .contains("`Err` value: RecvError; it needs a fake driver"),
            "{broken}"
        );
        let unlisted = row(
            |_| unreachable!("never opened"),
            || panic!("no such symbol"),
        )
        .open()
        .unwrap_err();
        assert!(
            unlisted.to_string().contains("no such symbol"),
            "{unlisted}"
        );
    }
}
