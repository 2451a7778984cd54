//! What a failed test prints: the cluster is often gone by the time that somebody reads it.
#![expect(clippy::print_stderr, reason = "this is where tests speak")]

use crate::{Kubectl, Namespace, installation};

/// Lines of each log.
const TAIL: usize = 60;

/// Prints what happened in the namespace of a test, and what the guardian has to say about it.
pub(crate) async fn report(namespace: &Namespace) {
    let own = &namespace.kubectl;
    eprintln!("=== {} failed after {:.1} s", namespace.name, namespace.made.elapsed().as_secs_f64());
    show(own, "pods", &["get", "pods", "-o", "wide"]).await;
    show(own, "what the pods say", &["describe", "pods"]).await;
    show(own, "events", &["get", "events", "--sort-by=.metadata.creationTimestamp"]).await;
    show(own, "ledgers", &["get", "configmaps", "-o", "yaml", "--field-selector=metadata.name!=kube-root-ca.crt"]).await;

    let guardian = Kubectl { namespace: installation() };
    show(&guardian, "the guardian", &["get", "pods", "-o", "wide"]).await;
    let since = format!("--since={}s", namespace.made.elapsed().as_secs() + 1);
    for part in ["webhook", "controller"] {
        let label = format!("--selector=app.kubernetes.io/name=guardian-{part}");
        let log = guardian.run(&["logs", &label, &since, "--tail=-1", "--prefix"]).await;
        let lines = log.map(|log| log.stdout + &log.stderr).unwrap_or_else(|e| format!("{e:?}"));
        // Other tests run at the same time.
        let mine: Vec<&str> = lines.lines().filter(|line| line.contains(&namespace.name) || !line.contains("e2e-")).collect();
        eprintln!("=== log of the {part}, {} lines in all", mine.len());
        for line in mine.iter().skip(mine.len().saturating_sub(TAIL)) {
            eprintln!("{line}");
        }
    }
}

async fn show(kubectl: &Kubectl, title: &str, arguments: &[&str]) {
    eprintln!("=== {title}");
    match kubectl.run(arguments).await {
        Ok(done) => eprintln!("{}{}", done.stdout, done.stderr),
        Err(failure) => eprintln!("{failure:?}"),
    }
}
