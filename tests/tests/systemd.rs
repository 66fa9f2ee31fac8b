//! The units of `deploy/systemd` fit the configurations beside them.

use std::path::{Path, PathBuf};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root").join("deploy")
}

/// Values of a key in one section of a unit.
fn values(unit: &str, section: &str, key: &str) -> Vec<String> {
    let text = std::fs::read_to_string(deploy().join("systemd").join(unit)).expect("it is there");
    let (mut found, mut is_inside) = (Vec::new(), false);
    for line in text.lines() {
        if line.starts_with('[') {
            is_inside = line == format!("[{section}]");
        }
        match line.split_once('=') {
            Some((name, value)) if is_inside && name == key => found.push(value.to_owned()),
            _ => {}
        }
    }
    found
}

/// By default a unit that failed five times within ten seconds is never started again.
#[test]
fn a_process_that_cannot_start_yet_is_tried_for_ever() {
    for unit in ["rookery-node.service", "rookery-frontend.service"] {
        assert_eq!(values(unit, "Service", "Restart"), ["always"], "{unit}");
        assert_eq!(values(unit, "Unit", "StartLimitIntervalSec"), ["0"], "{unit}");
    }
}

/// `RequiresMountsFor` says so, and so does a directory that systemd is to make itself.
#[test]
fn one_disk_that_is_away_does_not_keep_a_node_down() {
    const UNIT: &str = "rookery-node.service";
    let config = node::Config::load(&deploy().join("node.toml")).expect("node.toml");
    let made = values(UNIT, "Service", "StateDirectory");
    let made = made.iter().flat_map(|line| line.split(' ')).map(|dir| format!("/var/lib/{dir}"));
    let mut required: Vec<String> = made.collect();
    for key in ["Requires", "RequiresMountsFor", "BindsTo"] {
        required.extend(values(UNIT, "Unit", key));
    }
    for dir in &config.data_dirs {
        assert!(!required.iter().any(|it| Path::new(it).starts_with(dir)), "{required:?}");
    }
    let after = values(UNIT, "Unit", "After").concat();
    assert!(after.split(' ').any(|unit| unit == "local-fs.target"), "{after}");
}

/// What is read-only otherwise.
#[test]
fn a_node_may_write_to_its_disks() {
    let config = node::Config::load(&deploy().join("node.toml")).expect("node.toml");
    let made = values("rookery-node.service", "Service", "StateDirectory");
    for dir in &config.data_dirs {
        let is_in = |made: &String| dir.starts_with(Path::new("/var/lib").join(made));
        assert!(made.iter().any(is_in), "{dir:?} is not in {made:?}");
    }
}

#[test]
fn there_are_descriptors_for_all_connections() {
    let text = std::fs::read_to_string(deploy().join("frontend.toml")).expect("frontend.toml");
    let config = frontend::Config::from_toml(&text).expect("frontend.toml");
    let limit = values("rookery-frontend.service", "Service", "LimitNOFILE").concat();
    let limit: u32 = limit.parse().expect("a number");
    assert!(limit > config.connections_max + 1024, "{limit}");
}

/// `ctl cert` writes keys that nobody but their owner can read.
#[test]
fn a_unit_says_whose_the_keys_have_to_be() {
    let text = |name: &str| std::fs::read_to_string(deploy().join(name)).expect("it is there");
    let node = node::Config::load(&deploy().join("node.toml")).expect("node.toml");
    let frontend = frontend::Config::from_toml(&text("frontend.toml")).expect("frontend.toml");
    let shown = frontend.tls_key.as_deref().and_then(Path::parent).expect("a key in a directory");
    let given = [
        ("rookery-node.service", vec![node.identity_dir.as_path()]),
        ("rookery-frontend.service", vec![frontend.identity.as_path(), shown]),
    ];
    for (unit, directories) in given {
        let unit = text(&format!("systemd/{unit}"));
        // A line of a comment may end within the command.
        let words = unit.replace("\n#", "");
        let (_, told) = words.split_once("`chown -R ").expect("it is told");
        let (command, _) = told.split_once('`').expect("it ends");
        for directory in directories {
            let directory = directory.to_str().expect("a path in UTF-8");
            assert!(command.split(' ').any(|word| word == directory), "{directory}: {command}");
        }
    }
}

/// A node waits up to 6 s for others to lead, 5 s for its replicas and 10 s for all else, a frontend 20 s for
/// what is said to clients.
#[test]
fn whoever_is_told_to_end_is_not_killed_before() {
    for (unit, least_s) in [("rookery-node.service", 22), ("rookery-frontend.service", 21)] {
        let patience = values(unit, "Service", "TimeoutStopSec").concat();
        let patience_s: u32 = patience.parse().expect("seconds");
        assert!(patience_s >= least_s, "{unit}: {patience_s}");
    }
}
