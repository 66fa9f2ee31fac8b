//! The Kubernetes example can be read and its configurations are valid; ports, pods, volumes and the program
//! that it names are there. Nothing is tried on a cluster.

use std::collections::BTreeSet;
use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

fn text(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root");
    let text = std::fs::read_to_string(root.join("deploy/kubernetes").join(name));
    text.expect("it is there")
}

fn documents(name: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&text(name)).expect("it is YAML")
}

fn of_kind<'a>(all: &'a [Yaml], kind: &str) -> &'a Yaml {
    let found = all.iter().find(|document| document["kind"].as_str() == Some(kind));
    found.unwrap_or_else(|| panic!("there is a {kind}"))
}

fn configuration<'a>(all: &'a [Yaml], file: &str) -> &'a str {
    of_kind(all, "ConfigMap")["data"][file].as_str().expect("a file")
}

/// Number of each named port of the container.
fn ports(workload: &Yaml) -> Vec<(String, i64)> {
    let container = &workload["spec"]["template"]["spec"]["containers"][0];
    let ports = container["ports"].as_vec().expect("ports");
    let one = |port: &Yaml| {
        let name = port["name"].as_str().expect("a name").to_owned();
        (name, port["containerPort"].as_i64().expect("a number"))
    };
    ports.iter().map(one).collect()
}

/// Probes ask at a port that is there, budget and services choose the pods, and there is time to end.
fn check(all: &[Yaml], kind: &str) {
    let workload = of_kind(all, kind);
    let pod = &workload["spec"]["template"];
    let label = &pod["metadata"]["labels"]["app"];
    let names: Vec<String> = ports(workload).into_iter().map(|(name, _)| name).collect();
    let container = &pod["spec"]["containers"][0];
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["path"].as_str(), Some(path), "{probe}");
        let port = get["port"].as_str().expect("a port by name");
        assert!(names.iter().any(|name| name == port), "{probe} asks at {port}");
    }
    assert!(pod["spec"]["terminationGracePeriodSeconds"].as_i64().expect("seconds") >= 20);
    check_volumes(all, workload);
    check_image(pod);
    check_security(&pod["spec"]);
    let containers = ["initContainers", "containers"].map(|kind| pod["spec"][kind].as_vec());
    for container in containers.into_iter().flatten().flatten() {
        // Nothing is written but what the configuration names.
        let context = &container["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"].as_bool(), Some(true));
    }
    let budget = of_kind(all, "PodDisruptionBudget");
    assert_eq!(&budget["spec"]["selector"]["matchLabels"]["app"], label);
    assert_eq!(&workload["spec"]["selector"]["matchLabels"]["app"], label);
    for service in all.iter().filter(|document| document["kind"].as_str() == Some("Service")) {
        assert_eq!(&service["spec"]["selector"]["app"], label);
        for port in service["spec"]["ports"].as_vec().expect("ports") {
            let target = port["targetPort"].as_str().or(port["name"].as_str()).expect("a name");
            assert!(names.iter().any(|name| name == target), "a service leads to {target}");
        }
    }
}

fn names(of: &Yaml) -> Vec<&str> {
    let all = of.as_vec().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|one| one["name"].as_str().expect("a name")).collect()
}

/// What is mounted is there, what is there is mounted, and it is made of a ConfigMap that is there.
fn check_volumes(all: &[Yaml], workload: &Yaml) {
    let pod = &workload["spec"]["template"]["spec"];
    let templates = workload["spec"]["volumeClaimTemplates"].as_vec();
    let claims = templates.map(Vec::as_slice).unwrap_or_default();
    let claims = claims.iter().map(|claim| claim["metadata"]["name"].as_str().expect("a name"));
    let there: BTreeSet<&str> = names(&pod["volumes"]).into_iter().chain(claims).collect();
    let containers = ["initContainers", "containers"].map(|kind| pod[kind].as_vec());
    let mounted: BTreeSet<&str> = containers
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|one| names(&one["volumeMounts"]))
        .collect();
    assert_eq!(there, mounted);
    for volume in pod["volumes"].as_vec().expect("volumes") {
        if let Some(name) = volume["configMap"]["name"].as_str() {
            assert_eq!(of_kind(all, "ConfigMap")["metadata"]["name"].as_str(), Some(name));
        }
    }
}

/// What a namespace asks for whose Pod Security Standard is `restricted`, and no way to Kubernetes.
fn check_security(pod: &Yaml) {
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    let context = &pod["securityContext"];
    assert_eq!(context["runAsNonRoot"].as_bool(), Some(true));
    // Where only the user is named, the group is root's, whatever the image says.
    assert!(context["runAsGroup"].as_i64().is_some_and(|group| group > 0));
    assert_eq!(context["runAsGroup"], context["runAsUser"]);
    assert_eq!(context["seccompProfile"]["type"].as_str(), Some("RuntimeDefault"));
    let containers = ["initContainers", "containers"].map(|kind| pod[kind].as_vec());
    for container in containers.into_iter().flatten().flatten() {
        let context = &container["securityContext"];
        let name = container["name"].as_str().expect("a name");
        assert_eq!(context["allowPrivilegeEscalation"].as_bool(), Some(false), "{name}");
        assert_eq!(context["capabilities"]["drop"][0].as_str(), Some("ALL"), "{name}");
    }
}

/// It is the one that the Dockerfile makes: the same user, and arguments for its ENTRYPOINT.
fn check_image(pod: &Yaml) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root");
    let text = std::fs::read_to_string(root.join("deploy/Dockerfile")).expect("it is there");
    assert!(text.contains("\nENTRYPOINT [\"/usr/local/bin/rookery\"]\n"), "{text}");
    let user = pod["spec"]["securityContext"]["runAsUser"].as_i64().expect("a user");
    assert!(text.contains(&format!("\nUSER {user}:{user}\n")), "{text}");
    let container = &pod["spec"]["containers"][0];
    assert!(container["command"].is_badvalue(), "the image says what to run");
    let image = container["image"].as_str().expect("an image");
    assert!(text.contains(&format!(" -t {image} ")), "it is called {image}");
    let words = container["args"].as_vec().expect("arguments");
    assert_eq!(words[1].as_str(), Some("--config"));
    let mounts = container["volumeMounts"].as_vec().expect("mounts");
    let file = words[2].as_str().expect("a file");
    let is_below = |mount: &Yaml| file.starts_with(mount["mountPath"].as_str().expect("a path"));
    assert!(mounts.iter().any(is_below), "{file} is in no volume");
}

#[test]
fn nodes_are_a_stateful_set_with_a_name_and_a_disk_each() {
    let all = documents("node.yaml");
    check(&all, "StatefulSet");
    let set = of_kind(&all, "StatefulSet");
    let service = of_kind(&all, "Service");
    // A file that rotted keeps no node down.
    let policy = &set["spec"]["template"]["spec"]["securityContext"]["fsGroupChangePolicy"];
    assert_eq!(policy.as_str(), Some("OnRootMismatch"));
    assert_eq!(set["spec"]["serviceName"], service["metadata"]["name"]);
    assert_eq!(service["spec"]["clusterIP"].as_str(), Some("None"), "headless");
    assert_eq!(service["spec"]["publishNotReadyAddresses"].as_bool(), Some(true));
    let text = configuration(&all, "node.toml").replace("@POD@", "rookery-node-0");
    let config = node::Config::parse(&text).expect("valid");
    assert_eq!(config.zone, "", "a machine is no zone");
    // The init container writes one behind the rest.
    let zoned = node::Config::parse(&format!("{text}zone = \"rack-a\"\n")).expect("valid");
    assert_eq!(zoned.zone, "rack-a");
    let init = &set["spec"]["template"]["spec"]["initContainers"][0]["command"][2];
    let init = init.as_str().expect("a script");
    assert!(init.starts_with("set -e\n"), "a missing file is told");
    // What a secret gives may only be read, and so may its copies, which are there when a pod begins anew.
    let mut copies = init.lines().filter(|line| line.starts_with("cp "));
    assert!(copies.all(|line| line.starts_with("cp -f ")), "{init}");
    let ports = ports(set);
    assert!(ports.contains(&("grpc".into(), config.listen.port().into())));
    assert!(ports.contains(&("http".into(), config.http.expect("probes").port().into())));
    let prefix = format!("rookery-node-0.{}:", service["metadata"]["name"].as_str().expect("name"));
    assert!(config.join.iter().any(|peer| peer.starts_with(&prefix)), "{:?}", config.join);
}

#[test]
fn frontends_are_a_deployment() {
    let all = documents("frontend.yaml");
    check(&all, "Deployment");
    let pod = &of_kind(&all, "Deployment")["spec"]["template"]["spec"];
    let pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64();
    let patience = pod["terminationGracePeriodSeconds"].as_i64().expect("seconds");
    // An external balancer's health checks first, then the sessions' goodbye.
    assert!(pause.is_some_and(|pause| pause >= 20 && pause + 20 <= patience), "{pause:?}");
    let config = frontend::Config::from_toml(configuration(&all, "frontend.toml")).expect("valid");
    let ports = ports(of_kind(&all, "Deployment"));
    let listens = [
        ("imap", config.imap),
        ("imaps", config.imaps),
        ("pop3", config.pop3),
        ("pop3s", config.pop3s),
        ("lmtp", config.lmtp),
        ("http", config.http),
    ];
    for (name, address) in listens {
        let port = address.expect("it listens").port();
        assert!(ports.contains(&(name.into(), port.into())), "{name} is at {port}");
    }
    // A policy that forgets a port closes it: each is in one rule, and LMTP's says who may come.
    let policy = &of_kind(&all, "NetworkPolicy")["spec"];
    let label = &of_kind(&all, "Deployment")["spec"]["template"]["metadata"]["labels"]["app"];
    assert_eq!(&policy["podSelector"]["matchLabels"]["app"], label);
    let mut allowed = Vec::new();
    for rule in policy["ingress"].as_vec().expect("rules") {
        for port in rule["ports"].as_vec().expect("ports") {
            let name = port["port"].as_str().expect("a name");
            assert_eq!(name == "lmtp", !rule["from"].is_badvalue(), "{name}");
            allowed.push(name);
        }
    }
    assert!(ports.iter().all(|(name, _)| allowed.contains(&name.as_str())), "{allowed:?}");
}

#[test]
fn an_operator_has_a_pod_with_an_identity() {
    let all = documents("ctl.yaml");
    let pod = of_kind(&all, "Pod");
    check_security(&pod["spec"]);
    let container = &pod["spec"]["containers"][0];
    let nodes = documents("node.yaml");
    let template = &of_kind(&nodes, "StatefulSet")["spec"]["template"]["spec"];
    assert_eq!(container["image"], template["containers"][0]["image"]);
    assert_eq!(names(&container["volumeMounts"]), names(&pod["spec"]["volumes"]));
}

/// Without `--whole` it succeeds while copies are missing, and emptying the next disk may cost a majority.
#[test]
fn operators_are_told_to_wait_until_every_copy_is_whole() {
    let mut n_told = 0;
    for name in ["node.yaml", "frontend.yaml", "ctl.yaml"] {
        for rest in text(name).split("cluster health").skip(1) {
            assert!(rest.starts_with(" --whole"), "{name}: {rest}");
            n_told += 1;
        }
    }
    assert!(n_told > 0, "they are told nothing");
}

/// What a command scaled up is ended by the next `kubectl apply`: the number stands in the file.
#[test]
fn a_further_node_is_written_into_the_file() {
    let text = text("node.yaml");
    assert!(text.contains("write `replicas: 4` below"));
    for rest in text.split("--replicas=").skip(1) {
        assert!(rest.starts_with("0\n"), "{rest}");
    }
}

/// README, Upgrade: else clients are connected to frontends that have no nodes, or nodes of another build.
#[test]
fn frontends_are_gone_before_the_nodes_and_no_build_runs_beside_another() {
    let text = text("node.yaml");
    let at = |of: &str| text.find(&format!("kubectl scale {of} --replicas=0")).expect("it is told");
    assert!(at("deployment/rookery-frontend") < at("statefulset/rookery-node"));
}
