use guardian_hook::protocol::{RunResult, Tail};
use proptest::prelude::*;

use super::*;

const EVERY: Duration = Duration::from_secs(5);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

#[test]
fn a_role_and_perhaps_its_version_are_read() {
    let claim = |role: &str, version| Ok(Claim { role: role.into(), version });
    for (output, expected) in [
        ("primary", claim("primary", None)),
        ("primary\n", claim("primary", None)),
        ("\r\n  primary \t17 \r\n\n", claim("primary", Some(17))),
        ("replica 0", claim("replica", Some(0))),
        ("x 18446744073709551615", claim("x", Some(u64::MAX))),
        ("x 18446744073709551616", Err(Malformed::Version("18446744073709551616".into()))),
        ("x +1", Err(Malformed::Version("+1".into()))),
        ("x -1", Err(Malformed::Version("-1".into()))),
        ("x 1.5", Err(Malformed::Version("1.5".into()))),
        ("", Err(Malformed::Nothing)),
        (" \n\t\n", Err(Malformed::Nothing)),
        ("primary\nreplica", Err(Malformed::Lines(2))),
        ("primary 17 now", Err(Malformed::Words(3))),
        ("primär", Err(Malformed::Role("primär".into()))),
        ("primary:17", Err(Malformed::Role("primary:17".into()))),
        ("-primary", Err(Malformed::Role("-primary".into()))),
        ("primary.", Err(Malformed::Role("primary.".into()))),
        (&"r".repeat(63), claim(&"r".repeat(63), None)),
        (&"r".repeat(64), Err(Malformed::Role("r".repeat(64)))),
        (&"r".repeat(4096), Err(Malformed::Role("r".repeat(64)))),
    ] {
        assert_eq!(Claim::parse(output), expected, "{output:?}");
    }
    assert_eq!(
        Claim::parse("b\u{1b}[31m").unwrap_err().to_string(),
        r#""b\u{1b}[31m" is no role: 1 to 63 letters, digits, `-`, `_`, `.`, a letter or digit at both ends"#
    );
}

#[test]
fn silence_lasts_three_intervals_and_at_least_15_seconds() {
    for (every, seconds) in [(0, 15), (1, 15), (5, 15), (6, 18), (60, 180)] {
        assert_eq!(silence(Duration::from_secs(every)), SignedDuration::from_secs(seconds), "{every}");
    }
    assert_eq!(silence(Duration::MAX), SignedDuration::MAX);
}

/// A pod: its label, its last word and the second of it, the second since which it does not answer.
type Told<'a> = (&'a str, &'a str, i64, Option<i64>);

fn witness((_, word, heard, unanswered): &Told<'_>) -> Witness {
    Witness {
        since: at(0),
        claim: Claim::parse(word).ok().map(|claim| (claim, at(*heard))),
        silence: unanswered.map(|second| Silence { since: at(second), why: Some("it hangs".to_owned()) }),
    }
}

/// The labels after the ruling, `-` for none; the words of its holds; and the second of its wake.
fn ruled(pods: &[Told<'_>], now: i64) -> (String, String, Option<i64>) {
    let witnesses: Vec<Witness> = pods.iter().map(witness).collect();
    let names: Vec<String> = (0..pods.len()).map(|n| format!("redis-{n}")).collect();
    let pods: Vec<Option<String>> = pods.iter().map(|pod| (!pod.0.is_empty()).then(|| pod.0.to_owned())).collect();
    let candidates = names.iter().zip(&pods).zip(&witnesses).enumerate();
    let candidates = candidates.map(|(n, ((name, label), witness))| {
        (u32::try_from(n).unwrap(), Candidate { name, label: label.as_deref(), witness: Some(witness) })
    });
    let ruling = rule(&candidates.collect(), EVERY, at(now));
    let after = pods.iter().enumerate().map(|(n, before)| {
        let change = ruling.changes.get(&u32::try_from(n).unwrap());
        assert_ne!(change, Some(before), "what is as it should be is not changed");
        change.unwrap_or(before).clone().unwrap_or("-".into())
    });
    let after = after.collect::<Vec<_>>().join(" ");
    let holds: Vec<String> = ruling.holds.into_iter().map(|(word, why)| format!("{word}: {why}")).collect();
    (after, holds.join("; "), ruling.wake.map(|wake| wake.duration_since(at(0)).as_secs()))
}

#[test]
fn the_arbiter_gives_a_role_to_whom_it_belongs() {
    let table: [(&[Told<'_>], &str, &str); 12] = [
        // (label, last word, when, unanswered since), all seen at second 100.
        (&[("", "primary", 99, None), ("", "replica", 99, None)], "primary replica", ""),
        (&[("primary", "replica", 99, None), ("replica", "primary", 99, None)], "replica primary", ""),
        // Without versions whoever prints a role has it.
        (&[("", "replica", 99, None), ("replica", "replica", 99, None)], "replica replica", ""),
        (&[("primary", "primary", 99, None), ("", "primary", 99, None)], "primary primary", ""),
        // The higher version has it, whoever had it before and whoever spoke last.
        (&[("primary", "primary 16", 99, None), ("replica", "primary 17", 90, None)], "- primary", ""),
        (&[("", "primary 9", 99, None), ("", "primary 10", 99, None)], "- primary", ""),
        // A claim without a version is weaker than one with.
        (&[("primary", "primary", 99, None), ("", "primary 0", 99, None)], "- primary", ""),
        // Versions of other roles are nobody's affair.
        (&[("", "primary 3", 99, None), ("", "standby 4", 99, None), ("", "replica", 99, None)], "primary standby replica", ""),
        // Equal versions: nobody is relabelled.
        (
            &[("primary", "primary 17", 99, None), ("replica", "primary 17", 99, None), ("primary", "primary 16", 99, None)],
            "primary replica -",
            "RoleContested: redis-0 and redis-1 claim the role primary with version 17: their labels stay as they are",
        ),
        // A pod that was never heard of keeps what it has, as long as nobody has asked.
        (&[("primary", "", 0, None)], "primary", ""),
        // The last word of a pod that nobody had the time to ask stands.
        (&[("primary", "primary", 1, None)], "primary", ""),
        (
            &[("primary", "primary 17", 80, Some(85)), ("replica", "primary 16", 99, None)],
            "- primary",
            "RoleUnknown: pod redis-0 does not tell its role: it hangs",
        ),
    ];
    for (pods, labels, holds) in table {
        assert_eq!(ruled(pods, 100), (labels.into(), holds.into(), None), "{pods:?}");
    }
}

#[test]
fn a_silent_pod_keeps_its_role_until_the_bound_and_no_longer() {
    let silent = [("primary", "primary", 50, Some(55))];
    assert_eq!(ruled(&silent, 55), ("primary".into(), String::new(), Some(65)));
    assert_eq!(ruled(&silent, 64), ("primary".into(), String::new(), Some(65)));
    assert_eq!(ruled(&silent, 65).0, "-");
    // Asked late: one whole interval has to pass before silence counts.
    assert_eq!(ruled(&[("primary", "primary", 50, Some(70))], 72), ("primary".into(), String::new(), Some(75)));
    // A controller that has just begun gives it the whole time.
    let unheard = [("primary", "", 0, Some(1))];
    assert_eq!(ruled(&unheard, 14), ("primary".into(), String::new(), Some(15)));
    assert_eq!(ruled(&unheard, 15).0, "-");
    // What never had a role has none to lose, and is told of all the same.
    assert_eq!(ruled(&[("", "", 0, Some(1))], 15).1.split(':').next(), Some("RoleUnknown"));
}

#[test]
fn a_pod_that_nobody_knows_of_yet_is_left_alone() {
    let candidate = Candidate { name: "redis-0", label: Some("primary"), witness: None };
    assert_eq!(rule(&[(0, candidate)].into(), EVERY, at(0)), Ruling::default());
}

#[test]
fn a_pod_that_does_not_run_loses_its_role_without_a_word() {
    let silence = Some(Silence { since: at(0), why: None });
    let witness = Witness { since: at(0), claim: None, silence };
    let candidate = Candidate { name: "redis-0", label: Some("primary"), witness: Some(&witness) };
    let expected = Ruling { changes: [(0, None)].into(), ..Ruling::default() };
    assert_eq!(rule(&[(0, candidate)].into(), EVERY, at(15)), expected);
}

#[test]
fn an_answer_is_a_claim_or_says_what_it_is_instead() {
    let answer = |result, stdout: &str, stderr: &str| {
        let tail = |text: &str| Tail { text: text.into(), dropped: 0 };
        Sample { name: "role".into(), result, duration_ms: 1, stdout: tail(stdout), stderr: tail(stderr), age_ms: None }
    };
    let exited = |code| RunResult::Exited { code };
    for (answer, expected) in [
        (answer(exited(0), "primary 17\n", "a warning\n"), "primary Some(17)"),
        (answer(exited(0), "", ""), "it printed nothing, where one line `ROLE` or `ROLE VERSION` is expected"),
        (
            answer(exited(1), "primary\n", "first\nno\troute\n\n"),
            "its role probe ended with exit code 1, its last words: no route",
        ),
        (answer(RunResult::TimedOut, "primary\n", ""), "its role probe was killed at its time out"),
        (answer(RunResult::NotFound { what: "/x".into() }, "", ""), "its role probe was not started: there is no /x"),
    ] {
        let is = judge(&answer).map(|claim| format!("{} {:?}", claim.role, claim.version));
        assert_eq!(is.unwrap_or_else(|why| why), expected);
    }
}

proptest! {
    #[test]
    fn whatever_is_printed_is_a_claim_that_fits_a_label_or_a_sentence(output in "\\PC{0,80}|[a-c \n]{0,12}|[a-z.-]{1,66} [0-9]{0,22}") {
        match Claim::parse(&output) {
            Ok(claim) => {
                prop_assert!(is_label_value(&claim.role));
                let again = claim.version.map_or_else(|| claim.role.clone(), |v| format!("{} {v}", claim.role));
                prop_assert_eq!(Claim::parse(&again), Ok(claim));
            }
            Err(why) => prop_assert!(why.to_string().len() < 700 && !why.to_string().contains('\n')),
        }
    }

    /// Of a role with versions, at most one pod gets the label by a ruling, and it is one with the highest version; a second ruling changes
    /// nothing; and no pod gets a label that it did not claim.
    #[test]
    fn rulings_are_stable_and_a_role_with_a_version_has_one_holder(
        pods in prop::collection::vec((0..3_usize, 0..3_usize, prop::option::of(0..3_u64), 0..40_i64, prop::option::of(0..40_i64)), 1..5),
    ) {
        let roles = ["", "primary", "replica"];
        let witnesses: Vec<Witness> = pods.iter().map(|(_, role, version, heard, unanswered)| Witness {
            since: at(0),
            claim: (*role > 0).then(|| (Claim { role: roles[*role].into(), version: *version }, at(*heard))),
            silence: unanswered.map(|second| Silence { since: at(second), why: Some("no".to_owned()) }),
        }).collect();
        let mut labels: Vec<Option<String>> = pods.iter().map(|pod| (pod.0 > 0).then(|| roles[pod.0].to_owned())).collect();
        let before = labels.clone();
        let judge = |labels: &[Option<String>]| {
            let candidates = labels.iter().zip(&witnesses).enumerate().map(|(n, (label, witness))| {
                (u32::try_from(n).unwrap(), Candidate { name: "pod", label: label.as_deref(), witness: Some(witness) })
            });
            rule(&candidates.collect(), EVERY, at(40))
        };
        let ruling = judge(&labels);
        for (n, label) in &ruling.changes {
            labels[*n as usize].clone_from(label);
        }
        prop_assert_eq!(judge(&labels), Ruling { changes: BTreeMap::new(), ..ruling.clone() });
        let contested = ruling.holds.iter().any(|(word, _)| *word == reason::Hold::RoleContested);
        for role in &roles[1..] {
            let highest = witnesses.iter().filter(|w| w.lost_at(EVERY).is_none_or(|lost| at(40) < lost))
                .filter_map(|w| w.claim.as_ref()).filter(|(c, _)| c.role == *role).filter_map(|(c, _)| c.version).max();
            let gained: Vec<usize> = (0..labels.len()).filter(|n| labels[*n].as_deref() == Some(role) && before[*n] != labels[*n]).collect();
            for n in &gained {
                let (claim, _) = witnesses[*n].claim.as_ref().unwrap();
                prop_assert_eq!((claim.role.as_str(), claim.version), (*role, highest));
            }
            prop_assert!(highest.is_none() || contested || gained.len() <= 1);
        }
    }
}
