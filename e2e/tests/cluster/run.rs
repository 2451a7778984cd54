//! Tasks and hooks that a person runs.

use guardian_core::ledger::Verdict;
use guardian_core::names;
use guardian_e2e::{Done, Failure, Namespace, Outcome, application, guardian, guardian_started, installation, namespace, policy};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Child;

use crate::admission::policy_text;

const TASKS: &str = "hooks: {preStop: {command: ['true']}}\n\
    tasks: {meet: {script: meet.sh, timeout: 50s}, where: {script: where.sh, target: all}, fail: {command: [sh, -c, 'echo no >&2; exit 9']}, \
    slow: {command: [sleep, '30'], timeout: 1s}, much: {command: [sh, -c, 'seq 1 200000'], target: 'ordinal:0'}}";

/// Counts its starts, tells that it has begun, and ends when somebody has put an exit code into `/data/go`.
const MEET: &str = r#"#!/bin/sh
set -eu
echo "$GUARDIAN_REASON" >> /data/starts
echo begun
until [ -s /data/go ]; do sleep 0.1; done
echo ended >&2
exit "$(cat /data/go)"
"#;
const WHERE: &str = "#!/bin/sh\necho \"$GUARDIAN_HOOK in $GUARDIAN_POD, peers $GUARDIAN_PEERS\"\n";

/// A guarded set of so many pods, all of them ready.
async fn ready(ns: &Namespace, replicas: u32) -> Outcome {
    let text = policy_text("app", TASKS);
    let scripts = [("meet.sh", MEET), ("where.sh", WHERE)];
    ns.kubectl.apply_objects(&[policy("app", &text, &scripts), application("app", replicas)]).await?;
    for ordinal in 0..replicas {
        ns.ready(&format!("app-{ordinal}")).await?;
    }
    Ok(())
}

async fn run(ns: &Namespace, arguments: &[&str]) -> Outcome<Done> {
    let installation = installation();
    guardian(&[&["run", "-n", &ns.name, "--installation", &installation, "app"], arguments].concat()).await
}

/// The task that meets the test, started and heard to have begun.
async fn begun(ns: &Namespace) -> Outcome<Child> {
    let installation = installation();
    let mut child = guardian_started(&["run", "-n", &ns.name, "--installation", &installation, "app", "meet"])?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or_else(|| Failure::Unexpected("no pipe".to_owned()))?);
    let mut line = String::new();
    let heard = stdout.read_line(&mut line).await.map_err(|error| Failure::Run("reading its output".to_owned(), error))?;
    if line == "begun\n" {
        return Ok(child);
    }
    Err(Failure::Unexpected(format!("{heard} bytes: {line:?}; {}", rest(&mut child).await?)))
}

/// What it writes to standard error, to its end.
async fn rest(child: &mut Child) -> Outcome<String> {
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).await.map_err(|error| Failure::Run("reading its errors".to_owned(), error))?;
    }
    Ok(text)
}

async fn go(ns: &Namespace, exit_code: &str) -> Outcome {
    ns.kubectl.exec("app-0", &["sh", "-c", &format!("echo {exit_code} > /data/go")]).await.map(drop)
}

/// The records of commands, oldest first: hook, pod, verdict and message.
async fn closed(ns: &Namespace) -> Outcome<Vec<(String, String, Verdict, String)>> {
    let ledger = ns
        .until_ledger("app", "nothing is open", |ledger| {
            let open = &ledger.state.episodes;
            if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
        })
        .await?;
    let records = ledger.records().filter(|record| record.reason == "Requested");
    Ok(records.map(|record| (record.hook, record.pod, record.verdict, record.message)).collect())
}

#[tokio::test]
async fn what_a_task_writes_comes_while_it_runs_and_its_exit_code_is_passed_on_and_recorded() -> Outcome {
    namespace::enabled("run", async |ns| {
        ready(ns, 1).await?;
        let mut child = begun(ns).await?;
        let held = run(ns, &["fail"]).await?;
        assert!(held.code == Some(1) && held.stderr.contains("pod app-0 is held by command-"), "{held:?}");
        go(ns, "5").await?;
        let stderr = rest(&mut child).await?;
        let code = child.wait().await.map_err(|error| Failure::Run("waiting for it".to_owned(), error))?.code();
        assert_eq!(code, Some(5), "{stderr}");
        assert!(stderr.starts_with("ended\nguardian: pod app-0: tasks.meet ended with exit code 5"), "{stderr}");
        let closed = closed(ns).await?;
        let [(hook, pod, verdict, message)] = &closed[..] else { panic!("{closed:?}") };
        assert_eq!((hook.as_str(), pod.as_str(), *verdict), ("tasks.meet", "app-0", Verdict::Failed));
        assert!(message.starts_with("asked for by ") && message.contains("its last words: ended"), "{message}");
        assert_eq!(ns.kubectl.exec("app-0", &["cat", "/data/starts"]).await?, "Requested\n");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_task_whose_caller_was_killed_goes_on_and_the_controller_writes_down_its_end() -> Outcome {
    namespace::enabled("run-killed", async |ns| {
        ready(ns, 1).await?;
        let mut child = begun(ns).await?;
        child.kill().await.map_err(|error| Failure::Run("killing it".to_owned(), error))?;
        go(ns, "0").await?;
        let closed = closed(ns).await?;
        let [(hook, pod, verdict, message)] = &closed[..] else { panic!("{closed:?}") };
        assert_eq!((hook.as_str(), pod.as_str(), *verdict), ("tasks.meet", "app-0", Verdict::Succeeded), "{message}");
        assert_eq!(ns.kubectl.exec("app-0", &["cat", "/data/starts"]).await?, "Requested\n", "it was started once");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_end_is_told_by_its_exit_code_and_all_that_is_written_comes() -> Outcome {
    namespace::enabled("run-ends", async |ns| {
        ready(ns, 2).await?;
        let failed = run(ns, &["fail", "--pod", "app-1"]).await?;
        assert_eq!((failed.code, failed.stdout.as_str()), (Some(9), ""), "{}", failed.stderr);
        assert!(failed.stderr.starts_with("no\nguardian: pod app-1: tasks.fail ended with exit code 9"), "{}", failed.stderr);
        let slow = run(ns, &["slow", "--pod", "app-0"]).await?;
        assert!(slow.code == Some(124) && slow.stderr.contains("was killed at its time out"), "{slow:?}");
        let much = run(ns, &["much"]).await?.ok()?;
        let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
        assert!(much.stdout == expected, "{} bytes of {}: {}", much.stdout.len(), expected.len(), much.stderr);

        let everywhere: Value = run(ns, &["where", "-o", "json"]).await?.json()?;
        let said: Vec<&Value> = everywhere["runs"].as_array().into_iter().flatten().map(|run| &run["stdout"]).collect();
        let expected = [("app-0", "app-1"), ("app-1", "app-0")];
        let expected = expected.map(|(pod, peer)| json!(format!("tasks.where in {pod}, peers {peer}.app.{}.svc\n", ns.name)));
        assert_eq!(said, expected.iter().collect::<Vec<_>>());
        assert_eq!(closed(ns).await?.len(), 5);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_may_not_run_is_refused_and_a_dry_run_writes_nothing() -> Outcome {
    namespace::enabled("run-refused", async |ns| {
        ready(ns, 2).await?;
        let where_ = run(ns, &["meet"]).await?;
        assert!(where_.code == Some(2) && where_.stderr.contains("--pod"), "{where_:?}");
        let stop = run(ns, &["preStop", "--pod", "app-0"]).await?;
        assert!(stop.code == Some(2) && stop.stderr.contains("cannot be run by hand"), "{stop:?}");
        let dry = run(ns, &["where", "--dry-run"]).await?.ok()?;
        assert_eq!(dry.stdout.lines().filter(|line| line.contains("script where.sh (dry run)")).count(), 2, "{}", dry.stdout);
        let hold = format!("{}=night shift", names::HOLD);
        ns.kubectl.run(&["annotate", "statefulset", "app", &hold]).await?.ok()?;
        let held = run(ns, &["where"]).await?;
        assert!(held.code == Some(1) && held.stderr.contains("on hold: night shift"), "{held:?}");
        assert_eq!(closed(ns).await?, []);
        Ok(())
    })
    .await
}
