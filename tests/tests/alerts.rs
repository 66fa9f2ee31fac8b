//! Metrics that operators are told of are told by somebody. Whether a rule fires is tried nowhere.

use std::collections::BTreeSet;
use std::path::Path;

use yaml_rust2::YamlLoader;

/// Where metrics are named: what all names of a file begin with and are not written with, and the file.
const SOURCES: [(&str, &str); 3] = [
    ("rookery_scrub_", "crates/node/src/scrub.rs"),
    ("rookery_frontend_", "crates/frontend/src/metrics.rs"),
    ("", "crates/node/src/metrics.rs"),
];

fn text(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root");
    std::fs::read_to_string(root.join(name)).expect("it is there")
}

/// All words of a text that a metric of ours is named like.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("rookery_")).collect()
}

fn is_told(metric: &str) -> bool {
    let at = |(begins, file): &(&str, &'static str)| {
        Some((metric.strip_prefix(*begins)?.to_owned(), *file))
    };
    let (name, file) = SOURCES.iter().find_map(at).expect("the last one takes all");
    text(file).contains(&format!("\"{name}\""))
}

#[test]
fn each_metric_that_is_named_is_told() {
    for file in ["deploy/alerts.yaml", "deploy/settings.md", "README.md", "ARCHITECTURE.md"] {
        for metric in metrics(&text(file)) {
            assert!(is_told(metric), "{file}: nobody tells {metric}");
        }
    }
    assert!(!is_told("rookery_disk") && !is_told("rookery_scrub_nothing"));
}

#[test]
fn each_rule_asks_for_something_and_says_how_bad_it_is() {
    let all = YamlLoader::load_from_str(&text("deploy/alerts.yaml")).expect("it is YAML");
    let rules = all[0]["groups"][0]["rules"].as_vec().expect("rules");
    let mut names = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(names.insert(name), "{name} is there twice");
        let asked = rule["expr"].as_str().expect("an expression");
        assert!(!metrics(asked).is_empty() || asked.starts_with("up{"), "{name}: {asked}");
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("page" | "ticket")), "{name}: {severity:?}");
        assert!(rule["annotations"]["summary"].as_str().is_some(), "{name}");
    }
}
