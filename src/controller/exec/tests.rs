use std::collections::BTreeMap;

use futures::FutureExt as _;
use guardian_hook::protocol::{PROTOCOL, Probe, Program, RunResult, Sample, Tail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, simplex};
use tokio::sync::oneshot;

use super::kept::MOST;
use super::*;

/// The other end of a connection: a runner.
struct Runner {
    stdin: tokio::io::ReadHalf<tokio::io::SimplexStream>,
    stdout: tokio::io::WriteHalf<tokio::io::SimplexStream>,
    status: oneshot::Sender<Status>,
}

impl Runner {
    /// Reads a request, and answers each of its questions.
    async fn answer(&mut self) -> Collect {
        let length = self.stdin.read_u32().await.unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.stdin.read_exact(&mut bytes).await.unwrap();
        let request: Collect = serde_json::from_slice(&bytes).unwrap();
        for probe in &request.probes {
            let (result, stdout) = (RunResult::Exited { code: 0 }, Tail { text: "primary".to_owned(), dropped: 0 });
            let sample =
                Sample { name: probe.name.clone(), result, duration_ms: 1, stdout, stderr: Tail::default(), age_ms: None };
            self.say(&Collected::Probe(sample)).await;
        }
        self.say(&Collected::Usage(guardian_hook::protocol::Usage::default())).await;
        request
    }

    async fn say(&mut self, line: &Collected) {
        self.stdout.write_all(format!("{}\n", serde_json::to_string(line).unwrap()).as_bytes()).await.unwrap();
    }

    fn end(self) {
        self.status.send(Status::default()).unwrap();
    }
}

fn connection() -> (Session, Runner) {
    let (stdin, to_us) = simplex(1024);
    let (stdout, from_us) = simplex(1024);
    let (status, ended) = oneshot::channel();
    let session = Session::over(to_us, stdout, ended.map(Result::ok).boxed());
    (session, Runner { stdin, stdout: from_us, status })
}

fn questions(pod: &str, wait_ms: u64) -> Questions {
    let question = |name: &str| Probe {
        name: name.to_owned(),
        program: Program::Command(vec!["x".to_owned()]),
        env: BTreeMap::new(),
        timeout_ms: 5000,
        max_output: 4096,
    };
    let probes = vec![question("role"), question("metrics.clients")];
    let request = Collect { version: PROTOCOL, pod_uid: format!("uid-{pod}"), probes, wait_ms, disk: None };
    Questions { namespace: "shop".to_owned(), pod: pod.to_owned(), container: "redis".to_owned(), request, agent: None }
}

async fn ask_once(session: &mut Session, questions: &Questions) -> (Vec<String>, Result<Option<Spoken>, ExecError>) {
    let mut names = Vec::new();
    let mut heard = |line| match line {
        Collected::Probe(sample) => names.push(sample.name),
        Collected::Usage(_) => names.push("usage".to_owned()),
        other => panic!("{other:?}"),
    };
    let said = ask(session, questions, &frame(&questions.request).unwrap(), &mut heard).await;
    (names, said)
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let (mut session, mut runner) = connection();
    let questions = questions("redis-0", 15_000);
    for _ in 0..3 {
        let ((names, said), asked) = tokio::join!(ask_once(&mut session, &questions), runner.answer());
        assert!(said.unwrap().is_none(), "the runner has not ended");
        assert_eq!(names, ["role", "metrics.clients", "usage"]);
        assert_eq!(asked, questions.request);
    }
}

#[tokio::test]
async fn a_runner_that_ends_within_an_answer_is_told_from_one_that_waits() {
    let (mut session, runner) = connection();
    let questions = questions("redis-0", 15_000);
    runner.end();
    let (names, said) = ask_once(&mut session, &questions).await;
    assert!(said.unwrap().is_some() && names.is_empty());
    let (mut session, runner) = connection();
    drop(runner.status);
    assert!(matches!(ask_once(&mut session, &questions).await.1, Err(ExecError::Cut)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nobody_answers_is_given_up() {
    let (mut session, _runner) = connection();
    let (names, said) = ask_once(&mut session, &questions("redis-0", 15_000)).await;
    assert!(names.is_empty() && matches!(said, Err(ExecError::Silent(_))));
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_as_long_as_its_runner_waits() {
    let kept = Kept::default();
    let of = |pod: &str| Place::of(&questions(pod, 0));
    let put = |pod: &str, wait_ms: u64| {
        let (session, runner) = connection();
        kept.put(of(pod), session, &questions(pod, wait_ms));
        runner
    };
    let _once = put("once", 0);
    assert!(!kept.has(&of("once")), "it does not wait");

    let (ended, waiting) = (put("ended", 15_000), put("waiting", 15_000));
    ended.end();
    assert!(kept.take(&of("ended")).is_none() && kept.take(&of("waiting")).is_some());
    assert!(kept.take(&of("waiting")).is_none(), "it has one user at a time");
    drop(waiting);

    let _idle = put("idle", 15_000);
    tokio::time::advance(Duration::from_secs(16)).await;
    let _other = put("other", 15_000);
    assert!(!kept.has(&of("idle")) && kept.has(&of("other")));
}

#[tokio::test]
async fn no_more_connections_are_kept_than_there_is_room_for() {
    let kept = Kept::default();
    let runners = (0..=MOST).map(|n| {
        let (session, runner) = connection();
        let questions = questions(&format!("redis-{n}"), 15_000);
        kept.put(Place::of(&questions), session, &questions);
        runner
    });
    let _runners: Vec<_> = runners.collect();
    let has = |n: usize| kept.has(&Place::of(&questions(&format!("redis-{n}"), 0)));
    assert!(has(0) && has(MOST - 1) && !has(MOST));
}
