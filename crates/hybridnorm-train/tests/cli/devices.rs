//! `devices` and `verify` as a user meets them.

use hybridnorm_train::device::{DEVICES, fusion};

use crate::place::Place;

#[test]
fn devices_are_listed_for_people_and_for_machines() {
    let place = Place::new();
    let text = place.succeed("devices");
    let json: serde_json::Value = serde_json::from_str(&place.succeed("devices --json")).unwrap();
    let entries = json.as_array().unwrap();
    assert_eq!(entries.len(), DEVICES.len());
    for (row, entry) in DEVICES.iter().zip(entries) {
        assert!(text.contains(row.summary), "{text}");
        assert_eq!(entry["name"], row.name);
        assert_eq!(entry["compiled_in"], row.is_compiled_in());
        let found = entry["found"].as_array().unwrap();
        assert_eq!(found.is_empty(), entry["hint"].is_string(), "{entry}");
        for adapter in found {
            assert!(
                adapter["adapter"]
                    .as_str()
                    .is_some_and(|name| !name.is_empty())
            );
            assert!(text.contains(&format!(
                "--device {}: ",
                adapter["device"].as_str().unwrap()
            )));
        }
    }
}

#[test]
fn an_index_that_is_not_there_is_refused() {
    let place = Place::new();
    for row in DEVICES
        .iter()
        .filter(|row| row.numbered && row.is_compiled_in())
    {
        let message = place.refuse(&format!("--config tiny.toml --device {}:999", row.name));
        assert!(
            message.contains("999") || message.contains(row.needs),
            "{message}"
        );
    }
}

/// An option that would do nothing is refused by name.
#[test]
fn fusion_is_refused_where_there_is_none() {
    let place = Place::new();
    for device in ["flex", "ndarray"] {
        if DEVICES
            .iter()
            .any(|row| row.name == device && row.is_compiled_in())
        {
            let message = place.refuse(&format!("verify --device {device} --fusion both"));
            assert!(
                message.contains("--fusion") && message.contains(device),
                "{message}"
            );
        }
    }
    assert!(
        place
            .succeed("devices")
            .contains(match fusion::is_compiled_in() {
                true => "fusion compiled in",
                false => "fusion not compiled in (--features fusion)",
            })
    );
}
