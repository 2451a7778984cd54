//! The agent asks by itself and answers whoever reads, whatever else reaches its port, and nothing is left when it ends.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod pod;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;
use std::time::{Duration, Instant};

use guardian_hook::metric::MetricKind;
use guardian_hook::protocol::{
    AGENDA, Agenda, Collected, Family, MAX_ANSWER, PROTOCOL, Probe, Program, Repeated, RunResult, Sample, Working,
};
use pod::{Pod, UID, exited, until};
use rustix::process::{Pid, Signal, kill_process};

/// A question by a shell script in the directory of the pod; as `metrics.NAME` a gauge.
fn asked(name: &str, every_ms: u64, text: &str) -> Repeated {
    let program = Program::Script { name: "test.sh".into(), text: format!("#!/bin/sh\ncd \"$GUARDIAN_DIR\"\n{text}\n") };
    let probe = Probe { name: name.into(), program, env: BTreeMap::new(), timeout_ms: 10_000, max_output: MAX_ANSWER };
    let metric = name.strip_prefix("metrics.").map(|name| Family {
        name: name.into(),
        kind: MetricKind::Gauge,
        help: String::new(),
        labels: Vec::new(),
    });
    Repeated { probe, every_ms, metric }
}

/// As `put` leaves it.
fn put(pod: &Pod, revision: &str, questions: Vec<Repeated>) {
    let agenda =
        Agenda { version: PROTOCOL, revision: revision.into(), env: BTreeMap::from([("WHO".into(), "me".into())]), questions };
    put_bytes(pod, &serde_json::to_vec(&agenda).unwrap());
}

fn put_bytes(pod: &Pod, bytes: &[u8]) {
    fs::write(pod.path(".draft"), bytes).unwrap();
    fs::rename(pod.path(".draft"), pod.path(AGENDA)).unwrap();
}

struct Agent {
    process: Child,
    port: u16,
    said: BufReader<std::process::ChildStderr>,
}

impl Agent {
    fn start(pod: &Pod) -> Self {
        let mut process = pod.command("agent").env("GUARDIAN_AGENT_PORT", "0").spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap());
        let port = line(&mut said).rsplit(' ').next().unwrap().trim().parse().unwrap();
        Self { process, port, said }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// What is answered to these bytes, until the connection ends.
    fn says(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect();
        let _ = socket.write_all(bytes);
        rest(&mut socket)
    }

    /// The body of a page.
    fn page(&self, path: &str) -> String {
        let answer = self.says(format!("GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n").as_bytes());
        let (head, mut body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Transfer-Encoding: chunked"), "{head}");
        let mut whole = String::new();
        loop {
            let (size, more) = body.split_once("\r\n").unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            whole.push_str(&more[..size]);
            body = more[size..].strip_prefix("\r\n").unwrap();
            if size == 0 {
                assert_eq!(body, "");
                return whole;
            }
        }
    }

    fn collected(&self) -> (Working, Vec<Collected>) {
        let mut lines = self.page("/collect").lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>();
        match lines.remove(0) {
            Collected::Agent(working) => (working, lines),
            other => panic!("{other:?}"),
        }
    }

    fn sample(&self, name: &str) -> Option<Sample> {
        self.collected().1.into_iter().find_map(|line| match line {
            Collected::Probe(sample) if sample.name == name => Some(sample),
            _ => None,
        })
    }

    fn prints(&self, name: &str) -> Option<String> {
        self.sample(name).map(|sample| sample.stdout.text.trim().to_owned())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process.id().try_into().unwrap()).unwrap(), signal).unwrap();
    }
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

fn rest(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Ok(_) => {}
        // It was closed before all of the nonsense was read.
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{e}"),
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn it_asks_at_each_interval_and_tells_the_last_answers_with_their_age() {
    let pod = Pod::new();
    let agent = Agent::start(&pod);
    let nothing = (Working { pod_uid: UID.into(), revision: String::new() }, Vec::new());
    assert_eq!(agent.collected(), nothing, "nobody has asked for anything");
    put(
        &pod,
        "r1",
        vec![asked("role", 200, "echo x >> asked; echo \"$WHO $(wc -l < asked)\""), asked("metrics.lag", 60_000, "exit 3")],
    );
    until("it has asked three times", || agent.prints("role").is_some_and(|text| text >= "me 3".into()));
    let (working, lines) = agent.collected();
    assert_eq!((working.revision.as_str(), lines.len()), ("r1", 2), "no usage, which would be the agent's own");
    let lag = agent.sample("metrics.lag").unwrap();
    assert_eq!((lag.result, lag.age_ms.unwrap() >= 300), (exited(3), true), "asked once: {:?}", lag.age_ms);
    assert!(agent.sample("role").unwrap().age_ms.unwrap() < 5_000);
    assert_eq!(pod.runs(), Vec::<String>::new(), "and nothing is kept of it");
}

#[test]
fn metrics_are_served_as_the_controller_serves_them() {
    let pod = Pod::new();
    let labelled = |name: &str, text: &str, labels: &[&str]| {
        let mut question = asked(&format!("metrics.{name}"), 60_000, text);
        let family = question.metric.as_mut().unwrap();
        family.help = "Keys,\\ by db".into();
        family.labels = labels.iter().map(ToString::to_string).collect();
        question
    };
    let keys = labelled("redis_keys", "echo db0 5; echo 'a\"b 1e21'", &["db"]);
    put(&pod, "r1", vec![asked("role", 60_000, "echo primary"), keys, labelled("bad", "echo NaN", &[])]);
    let agent = Agent::start(&pod);
    until("all were asked", || agent.page("/metrics").matches("guardian_metric_up{").count() == 2);
    let expected = r#"# HELP guardian_metric_up 1 while the last run of the command of a metric in a pod was in order, is not stale, and is served
# TYPE guardian_metric_up gauge
guardian_metric_up{namespace="shop",set="redis-sts",pod="redis-sts-1",metric="redis_keys"} 1
guardian_metric_up{namespace="shop",set="redis-sts",pod="redis-sts-1",metric="bad"} 0
# HELP redis_keys Keys,\\ by db
# TYPE redis_keys gauge
redis_keys{namespace="shop",set="redis-sts",pod="redis-sts-1",db="a\"b"} 1e21
redis_keys{namespace="shop",set="redis-sts",pod="redis-sts-1",db="db0"} 5
"#;
    assert_eq!(agent.page("/metrics"), expected);
}

#[test]
fn a_command_that_fails_leaves_its_last_value_for_a_while_and_says_so() {
    let pod = Pod::new();
    put(&pod, "r1", vec![asked("metrics.keys", 200, "[ ! -e broken ] && echo 5")]);
    let agent = Agent::start(&pod);
    until("it is measured", || agent.page("/metrics").contains("metric=\"keys\"} 1\n"));
    fs::write(pod.path("broken"), "").unwrap();
    until("it fails", || agent.page("/metrics").contains("metric=\"keys\"} 0\n"));
    assert!(agent.page("/metrics").contains("keys{namespace=\"shop\",set=\"redis-sts\",pod=\"redis-sts-1\"} 5\n"));
    fs::remove_file(pod.path("broken")).unwrap();
    until("it is measured again", || agent.page("/metrics").contains("metric=\"keys\"} 1\n"));
}

#[test]
fn a_command_that_hangs_keeps_no_role_waiting_and_no_reader_and_is_killed_at_its_time_out() {
    let pod = Pod::new();
    let mut stuck = asked("metrics.stuck", 300, "(setsid sleep 300 &); exec sleep 300");
    stuck.probe.timeout_ms = 1500;
    put(&pod, "r1", vec![asked("role", 200, "echo x >> asked; wc -l < asked"), stuck, asked("metrics.good", 200, "echo 1")]);
    let agent = Agent::start(&pod);
    until("it hangs", || pod.processes().len() > 1);
    let begun = Instant::now();
    assert!(agent.collected().1.iter().any(|line| matches!(line, Collected::Waits { name, .. } if name == "metrics.stuck")));
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    until("the role is asked beside it", || agent.prints("role").is_some_and(|n| n.parse::<u32>().unwrap() >= 5));
    assert!(agent.sample("metrics.stuck").is_none(), "which it still does");
    until("it is killed", || agent.sample("metrics.stuck").is_some_and(|sample| sample.result == RunResult::TimedOut));
    // From then on it keeps no other command waiting.
    put(&pod, "r2", vec![asked("metrics.other", 100, "echo x >> others; wc -l < others")]);
    until("another is asked", || agent.prints("metrics.other").is_some());
}

#[test]
fn new_questions_take_hold_at_once_and_what_stays_keeps_its_answer() {
    let pod = Pod::new();
    let stays = asked("metrics.stays", 60_000, "echo x >> asked; wc -l < asked");
    put(&pod, "r1", vec![stays.clone(), asked("metrics.goes", 60_000, "exec sleep 300")]);
    let agent = Agent::start(&pod);
    until("one is answered, and one is being asked", || agent.prints("metrics.stays").is_some() && pod.processes().len() > 1);
    let begun = Instant::now();
    put(&pod, "r2", vec![asked("role", 60_000, "echo replica"), stays]);
    until("the new one is answered", || agent.prints("role").is_some());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((agent.collected().0.revision.as_str(), agent.prints("metrics.stays").unwrap().as_str()), ("r2", "1"));
    until("what is not asked any more ends", || pod.processes() == [agent.process.id()]);
}

#[test]
fn an_agenda_that_cannot_be_read_is_told_once_and_the_last_one_goes_on() {
    let pod = Pod::new();
    let good = asked("role", 100, "echo primary");
    put(&pod, "r1", vec![good.clone()]);
    let mut agent = Agent::start(&pod);
    until("it asks", || agent.prints("role").is_some());
    let mut endless = good.clone();
    endless.probe.timeout_ms = 0;
    put(&pod, "r2", vec![endless]);
    assert!(line(&mut agent.said).contains("agent.json is refused: probe \"role\": timeoutMs"));
    put_bytes(&pod, b"{");
    assert!(line(&mut agent.said).contains("agent.json cannot be read"));
    put_bytes(&pod, &vec![b' '; 130 * 1024]);
    assert!(line(&mut agent.said).contains("file too large"));
    assert_eq!((agent.collected().0.revision.as_str(), agent.prints("role").unwrap().as_str()), ("r1", "primary"));
    put(&pod, "r3", vec![good]);
    until("a good one is taken again", || agent.collected().0.revision == "r3");
}

#[test]
fn whoever_says_something_else_is_refused_in_the_words_of_http() {
    let pod = Pod::new();
    let agent = Agent::start(&pod);
    let endless = format!("GET /metrics HTTP/1.1\r\nX: {}", "a".repeat(10_000));
    let table: [(&[u8], &str); 10] = [
        (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /collect/ HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"POST /collect HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"get\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics HTTP/3\r\n\r\n", "400 Bad Request"),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\xff\xff\n\n", "400 Bad Request"),
        (b"\0\0\0\0\r\n\r\n", "400 Bad Request"),
        (endless.as_bytes(), "431 Request Header Fields Too Large"),
    ];
    for (bytes, status) in table {
        let answer = agent.says(bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer:?} to {:?}", String::from_utf8_lossy(bytes));
        assert!(answer.contains("Connection: close"), "{answer:?}");
    }
    assert!(agent.says(b"GET /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain"));
    // Any bytes at all, and a caller that is gone before it has its answer.
    let mut noise: u32 = 1;
    for length in 0..200 {
        let bytes: Vec<u8> = (0..length * 20)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_be_bytes()[0]
            })
            .collect();
        let _ = agent.connect().write_all(&bytes);
        let _ = agent.connect().write_all(b"GET /collect HTTP/1.1\r\n\r\n");
    }
    assert_eq!(agent.collected().0.pod_uid, UID);
}

#[test]
fn callers_that_do_not_go_keep_no_other_waiting_and_no_processor_busy() {
    let pod = Pod::new();
    let agent = Agent::start(&pod);
    let mut told: Vec<TcpStream> = (0..16).map(|_| agent.connect()).collect();
    for socket in &mut told {
        socket.write_all(b"GET /collect HTTP/1.1\r\n\r\n").unwrap();
    }
    let begun = Instant::now();
    assert_eq!(agent.collected().0.pod_uid, UID);
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", agent.process.id())).unwrap();
        let used = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        used.map(|n| n.parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = ticks();
    std::thread::park_timeout(Duration::from_secs(2));
    assert!(ticks() - before <= 5, "in hundredths of a second of CPU: {}", ticks() - before);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn a_slow_caller_has_five_seconds_and_sixteen_of_them_keep_no_other_waiting() {
    let pod = Pod::new();
    put(&pod, "r1", vec![asked("role", 60_000, "echo primary")]);
    let agent = Agent::start(&pod);
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..16).map(|_| agent.connect()).collect();
    for socket in &mut slow {
        socket.write_all(b"GET /coll").unwrap();
    }
    until("the seventeenth is served", || agent.prints("role").is_some());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // Those that are left drip on.
    let mut last = slow.pop().unwrap();
    drop(slow);
    while begun.elapsed() < Duration::from_secs(4) {
        std::thread::park_timeout(Duration::from_millis(500));
        last.write_all(b"e").unwrap();
    }
    assert_eq!(rest(&mut last), "");
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(8), "{took:?}");
}

/// As process 1 of its container it gets whatever signal the image names for its end.
#[test]
fn a_signal_ends_it_at_once_with_all_that_it_has_started() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::USR1] {
        let pod = Pod::new();
        let stuck = |name: &str| asked(name, 60_000, "(setsid sleep 300 &); exec sleep 300");
        put(&pod, "r1", vec![stuck("role"), stuck("metrics.lag")]);
        let mut agent = Agent::start(&pod);
        until("both hang", || pod.processes().len() >= 7);
        let begun = Instant::now();
        agent.signal(signal);
        assert_eq!(agent.process.wait().unwrap().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        until("nothing of it is left", || pod.processes().is_empty());
    }
}

#[test]
fn a_port_that_is_taken_is_told_once_and_tried_again() {
    let pod = Pod::new();
    let taken = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut process = pod.command("agent").env("GUARDIAN_AGENT_PORT", port.to_string()).spawn().unwrap();
    let mut said = BufReader::new(process.stderr.take().unwrap());
    assert!(line(&mut said).contains(&format!("cannot listen on port {port}")));
    drop(taken);
    assert!(line(&mut said).contains(&format!("listens on port {port}")));
    process.kill().unwrap();
    process.wait().unwrap();
}
