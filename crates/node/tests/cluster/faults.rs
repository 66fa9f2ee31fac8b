//! Faults are inflicted only where that was allowed, and end by themselves.

use std::time::Duration;

use api::fault::Fault;
use api::meta::MetaError;

use crate::FORMED;
use crate::house::{House, wait_for};

/// How long the faults here last.
const SHORT: Duration = Duration::from_secs(5);
/// How long a node that is not cut off takes at most to say how it is.
const PATIENCE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_need_leave_and_end_by_themselves() {
    let mut house = House::new(3, 1);
    for name in ["n2", "n3"] {
        let mut config = house.config(name);
        config.allow_drills = true;
        house.configure(name, config);
    }
    house.start_all().await;
    house.form(1).await;
    let (faults, admin) = (house.faults(), house.admin());

    match faults.inflict("n1", &Fault::Probe).await {
        Err(MetaError::Refused(words)) => assert!(words.contains("--allow-drills"), "{words}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(faults.inflict("n2", &Fault::Probe).await, Ok(0));

    // Cut off from its peers it can still be told of another fault, which has to wait.
    let lonely = Fault::Partition { duration: SHORT, peers_only: true };
    assert_eq!(faults.inflict("n3", &lonely).await, Ok(0));
    let busy = faults.inflict("n3", &lonely).await;
    assert!(matches!(busy, Err(MetaError::Refused(_))), "{busy:?}");

    // Cut off from everybody it says nothing, and nobody has to take that back.
    let cut = Fault::Partition { duration: SHORT, peers_only: false };
    assert_eq!(faults.inflict("n2", &cut).await, Ok(0));
    let silent = async || admin.status_of("n2", PATIENCE).await.is_err();
    wait_for("the node falls silent", SHORT, silent).await;
    let answers = async || admin.status_of("n2", PATIENCE).await.is_ok();
    wait_for("the partition ends by itself", FORMED, answers).await;
    let again = async || faults.inflict("n3", &lonely).await.is_ok();
    wait_for("the fault is over", FORMED, again).await;
    wait_for("all replicas are level", FORMED, async || house.converged().await).await;
    house.stop_all().await;
}
