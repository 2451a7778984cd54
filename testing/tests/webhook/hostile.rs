//! Bodies that no API server sends: each costs its sender a 400 at most, and nobody else anything.

use serde_json::Value;

use super::{POLICY, Served, approve, cluster, patch, policy_key, review, set, sneak};

/// Two of them are less than a server takes at a time.
const LARGE: usize = 4 << 20;
const DEEP: usize = 10_000;

async fn served() -> Served {
    let api = cluster();
    approve(&api, POLICY);
    sneak(&api, &policy_key(), POLICY);
    Served::ready(api).await
}

/// A CREATE of this StatefulSet, as a text that need not be JSON.
fn create(object: &str) -> String {
    review("u", "CREATE", "StatefulSet", &Value::from("the object")).replace("\"the object\"", object)
}

/// The set with `more` beside the name of its container.
fn in_container(more: &str) -> String {
    create(&set().to_string().replace(r#""name":"redis""#, &format!(r#""name":"redis",{more}"#)))
}

/// The set with `more` at its top, where nothing is read.
fn beside(more: &str) -> String {
    create(&format!("{{{more},{}", &set().to_string()[1..]))
}

fn nested(open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(DEEP), close.repeat(DEEP))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_made_to_break_a_parser_are_answered_and_the_next_review_is_served() {
    let mut served = served().await;
    let keys: String = (0..300_000).map(|n| format!("\"{n}\":0,")).collect();
    let whole = [
        "[".repeat(LARGE),
        "{\"a\":".repeat(LARGE / 5),
        "\"".to_owned() + &"\\u0000".repeat(LARGE / 6) + "\"",
        " ".repeat(LARGE),
        review("u", "CREATE", "StatefulSet", &set()).replace("\"uid\":\"u\",", ""),
        review("u", "CREATE", "StatefulSet", &set()).replace("\"AdmissionReview\"", "\"PodReview\""),
        create(&format!("{{{keys}")),
    ];
    for body in whole {
        let (status, answer) = served.post("/mutate", body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty() && error.len() < 1000), "{answer}");
    }
    for path in ["/mutate", "/validate"] {
        for more in [
            format!(r#""x":{}"#, nested("[", "]")),
            format!(r#""x":{}"#, nested("{\"a\":", "}")),
            format!(r#""x":{{{keys}"y":1}}"#),
            r#""x":NaN"#.to_owned(),
            r#""x":1e999"#.to_owned(),
            r#""x":"\ud800""#.to_owned(),
            r#""\udc00":1"#.to_owned(),
            r#""x":1,"x":2"#.to_owned(),
        ] {
            for body in [in_container(&more), beside(&more)] {
                let shown: String = more.chars().take(40).collect();
                let (status, answer) = served.post(path, body).await;
                assert!(status == 200 && answer["response"]["allowed"] == true || status == 400, "{path} {shown}: {answer}");
                let (status, answer) = served.post("/mutate", create(&set().to_string())).await;
                assert!(status == 200 && patch(&answer).is_some(), "after {shown}: {answer}");
            }
        }
    }
}

/// What is not read goes through as it came, whatever it holds: no operation names it.
#[tokio::test]
async fn what_is_odd_beside_the_template_is_copied_and_the_set_guarded() {
    let mut served = served().await;
    for more in [
        format!(r#""x":{}"#, nested("[", "]")),
        r#""x":"\ud800""#.to_owned(),
        r#""x":1,"x":2"#.to_owned(),
        r#""x":1e999"#.to_owned(),
    ] {
        let shown: String = more.chars().take(40).collect();
        let (status, answer) = served.post("/mutate", beside(&more)).await;
        let operations = patch(&answer).unwrap_or_default();
        assert!(status == 200 && operations.as_array().is_some_and(|o| !o.is_empty()), "{shown}: {answer}");
        for operation in operations.as_array().into_iter().flatten() {
            let path = operation["path"].as_str().unwrap_or_default();
            assert!(path.starts_with("/spec/template"), "{shown}: {operation}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_utf_8_is_refused() {
    let mut served = served().await;
    let mut body = create(&set().to_string()).into_bytes();
    let at = body.len() / 2;
    body[at] = 0xff;
    let (status, answer) = served.post("/mutate", body).await;
    assert_eq!((status, answer["error"].as_str()), (400, Some("the body is not UTF-8")));
}
