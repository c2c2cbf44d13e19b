//! The test cases of a device: `…::case_3_wgpu`, as the one template in hybridnorm-testing names them.

/// The device of a test case; a test without a device has none.
pub fn device(test: &str) -> Option<&str> {
    test.split("::").find_map(|part| {
        let (number, device) = part.strip_prefix("case_")?.split_once('_')?;
        let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        numbered.then_some(device)
    })
}

/// nextest's filter that leaves out the cases of these devices; empty when there are none.
pub fn nextest_filter(absent: &[&str]) -> Vec<String> {
    if absent.is_empty() {
        return Vec::new();
    }
    let devices = absent.join("|");
    let filter = format!(r"not test(/::case_\d+_({devices})(::|$)/)");
    vec!["-E".to_owned(), filter]
}

/// The same for `cargo test`, which knows substrings only: one for each number a case can have.
pub fn libtest_skips(absent: &[&str], devices: usize) -> Vec<String> {
    // rstest pads the numbers of a longer table: 01, 02, ...
    let width = devices.to_string().len();
    let mut skips = Vec::new();
    for device in absent {
        for number in 1..=devices {
            skips.push("--skip".to_owned());
            skips.push(format!("::case_{number:0width$}_{device}"));
        }
    }
    skips
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_names_its_device_and_nothing_else_does() {
        for (test, expected) in [
            ("norm::rms_matches::case_1_flex", Some("flex")),
            ("norm::rms_matches::case_12_wgpu", Some("wgpu")),
            ("norm::lengths::case_3_wgpu::len_2_7", Some("wgpu")),
            ("hints::no_wgpu_adapter_is_named", None),
            ("case_study_wgpu", None),
            ("norm::case__wgpu", None),
            ("norm::plain", None),
        ] {
            assert_eq!(device(test), expected, "{test}");
        }
    }

    #[test]
    fn filters_name_only_devices_that_are_absent() {
        assert!(nextest_filter(&[]).is_empty());
        assert!(libtest_skips(&[], 9).is_empty());
        assert_eq!(
            nextest_filter(&["wgpu", "cuda"]),
            ["-E", r"not test(/::case_\d+_(wgpu|cuda)(::|$)/)"]
        );
        let skips = libtest_skips(&["wgpu"], 9);
        assert_eq!(skips.len(), 18);
        assert_eq!(skips[..2], ["--skip", "::case_1_wgpu"]);
        assert_eq!(libtest_skips(&["wgpu"], 10)[1], "::case_01_wgpu");
    }
}
