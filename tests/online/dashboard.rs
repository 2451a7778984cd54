//! `guardian dashboard`, over its socket.

use std::process::Command;

use serde_json::json;

use crate::http::{self, Open};
use crate::scene::Scene;

/// As many pages are kept current at once.
const VIEWERS: usize = 16;

#[test]
fn the_pages_show_what_status_and_history_tell() {
    let scene = Scene::new();
    let dashboard = scene.dashboard(&[]);
    let start = http::get(&dashboard.address);
    assert_eq!((start.status, start.header("content-type")), (200, "text/html; charset=utf-8"), "{}", start.body);
    for words in ["Guarded", "Pending", "Unguarded", "NoPolicy", "on hold", ">2/3<", "<b>primary</b>", "OOMKilled", "attempt 3, "]
    {
        assert!(start.body.contains(words), "{words} in {}", start.body);
    }
    assert!(!start.body.contains("cannot be read"), "nothing was refused: {}", start.body);

    let set = http::get(&format!("{}sets/shop/redis", dashboard.address));
    assert_eq!(set.status, 200);
    for words in [
        "redis-2",
        "node-3",
        "rejoin (OOMKilled): attempt 3",
        "killed at its memory limit",
        "MASTERDOWN link with MASTER is down",
        "2 of 3 pods must stay ready",
        "redis_connected_clients",
        "The last 6 hours: 12 of 12 records.",
    ] {
        assert!(set.body.contains(words), "{words} in {}", set.body);
    }
    let pending = http::get(&format!("{}sets/shop/orders-postgres", dashboard.address)).body;
    assert!(pending.contains("the policy was edited") && pending.contains("terminationGracePeriodSeconds"), "{pending}");
    let none = http::get(&format!("{}sets/shop/none", dashboard.address));
    assert!(none.status == 404 && none.body.contains("There is no StatefulSet none in shop"), "{}", none.body);
}

#[test]
fn nobody_without_the_secret_and_no_page_of_another_name_gets_anything() {
    let scene = Scene::new();
    let dashboard = scene.dashboard(&[]);
    let (own, path) = http::parts(&dashboard.address);
    assert!(own.starts_with("127.0.0.1:"), "{own}");
    assert_eq!(path.trim_matches('/').len(), 32, "128 bits: {path}");
    let another = format!("http://{own}/{}/", "0".repeat(32));
    for wrong in [format!("http://{own}/"), another.clone(), format!("http://{own}/icon.svg"), format!("{another}live/")] {
        let answer = http::get(&wrong);
        assert_eq!(answer.status, 404, "{wrong}");
        assert!(!answer.body.contains("redis"), "{}", answer.body);
    }
    let (_, port) = own.split_once(':').expect("a port");
    for host in ["shop.example.org", "127.0.0.1", &format!("shop.example.org:{port}"), "127.0.0.1:1", ""] {
        for path in ["", "live/", "icon.svg"] {
            let answer = http::send("GET", &format!("{}{path}", dashboard.address), Some(host), "");
            assert!([421, 400].contains(&answer.status), "{host:?}: {}", answer.status);
            assert!(!answer.body.contains("redis"), "{}", answer.body);
        }
    }
    assert_eq!(http::send("GET", &dashboard.address, Some(&format!("localhost:{port}")), "").status, 200);
    for method in ["POST", "PUT", "DELETE"] {
        assert_eq!(http::send(method, &dashboard.address, None, "").status, 405, "{method}");
    }
}

#[test]
fn every_answer_forbids_framing_and_keeping_and_only_its_own_script_runs() {
    let scene = Scene::new();
    let dashboard = scene.dashboard(&[]);
    let (own, _) = http::parts(&dashboard.address);
    let first = http::get(&dashboard.address);
    for answer in [&first, &http::get(&format!("{}icon.svg", dashboard.address)), &http::get(&format!("http://{own}/"))] {
        let told =
            ["x-frame-options", "x-content-type-options", "referrer-policy", "cache-control"].map(|name| answer.header(name));
        assert_eq!(told, ["DENY", "nosniff", "no-referrer", "no-store"]);
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{:?}", answer.headers);
    }
    let policy = first.header("content-security-policy");
    let nonce = policy.split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    assert_eq!(first.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "the style and the script have it");
    assert!(!policy.contains("unsafe") && !first.body.contains("style=\"") && !first.body.contains("onclick"), "{policy}");
    assert_ne!(http::get(&dashboard.address).header("content-security-policy"), policy, "another page, another nonce");
    for outside in ["src=\"http", "href=\"http", "url(", "@import"] {
        assert!(!first.body.contains(outside), "{outside}");
    }
}

#[test]
fn a_change_of_the_ledger_comes_to_who_looks_without_being_asked_for() {
    let scene = Scene::new();
    let dashboard = scene.dashboard(&[]);
    let mut live = Open::start("GET", &format!("{}live/sets/shop/redis", dashboard.address), None, "");
    assert_eq!(live.status, 200);
    live.until("MASTERDOWN");
    let message = "rejoined <script>alert(1)</script> \u{1b}[31m \r at last";
    scene.ledger(
        "redis",
        &json!({}),
        &json!({}),
        &[scene.record(0.1, "redis-2", ["OOMKilled", "rejoin", "Succeeded"], 3, message)],
    );
    let told = live.until("at last");
    assert!(told.contains("rejoined &lt;script&gt;alert(1)&lt;/script&gt;") && !told.contains("<script"), "{told}");
    let page = http::get(&format!("{}sets/shop/redis", dashboard.address)).body;
    assert!(page.contains("at last") && !page.contains("MASTERDOWN"), "{page}");
}

#[test]
fn so_many_pages_are_kept_current_and_the_next_is_told_to_wait() {
    let scene = Scene::new();
    let dashboard = scene.dashboard(&[]);
    let live = format!("{}live/", dashboard.address);
    let mut open: Vec<Open> = (0..VIEWERS).map(|_| Open::start("GET", &live, None, "")).collect();
    assert!(open.iter().all(|open| open.status == 200));
    let more = http::get(&live);
    assert_eq!((more.status, more.header("retry-after")), (503, "30"));
    assert_eq!(http::get(&dashboard.address).status, 200, "a page as of now is still to be had");
    open.iter_mut().for_each(|open| drop(open.until("orders-postgres")));
    drop(open.pop());
    // Its place is free as soon as the server has seen that it is gone.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while Open::start("GET", &live, None, "").status != 200 {
        assert!(std::time::Instant::now() < until, "the place of a viewer who is gone is never free");
        std::thread::yield_now();
    }
}

#[test]
fn what_may_not_be_read_is_told_in_the_page() {
    let scene = Scene::new();
    for resource in ["pods", "pods/proxy", "namespaces"] {
        scene.api.forbid(resource);
    }
    let dashboard = scene.dashboard(&["-n", "shop"]);
    let start = http::get(&dashboard.address);
    assert_eq!(start.status, 200);
    for words in [
        "the guarded pods cannot be read: pods and their roles are not shown: pods is forbidden",
        "the namespaces cannot be read: whether a namespace is enabled or on hold is not known",
        "the controller&#39;s metrics cannot be read: pods is forbidden",
        "Guarded",
    ] {
        assert!(start.body.contains(words) || start.body.contains(&words.replace("&#39;", "'")), "{words} in {}", start.body);
    }
    assert!(!start.body.contains("<b>primary</b>"), "{}", start.body);
    // As soon as he may, he sees it, and the notice goes.
    let mut live = Open::start("GET", &format!("{}live/", dashboard.address), None, "");
    scene.api.permit("pods");
    live.until("<b>primary</b>");
    assert!(!http::get(&dashboard.address).body.contains("the guarded pods cannot be read"));
}

#[test]
fn it_shows_one_namespace_or_all_that_are_enabled() {
    let scene = Scene::new();
    scene.api.put("v1", "namespaces", "", "other", &json!({"metadata": {"labels": {"stateful-guardian.io/enabled": "true"}}}));
    scene.api.put("v1", "namespaces", "", "alien", &json!({"metadata": {}}));
    let spec = json!({"replicas": 1, "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "image": "c"}]}}});
    for namespace in ["other", "alien"] {
        scene.api.put("apps/v1", "statefulsets", namespace, &format!("{namespace}-set"), &json!({"spec": spec}));
    }
    let (all, one) = (scene.dashboard(&["-A"]), scene.dashboard(&["-n", "shop"]));
    let page = http::get(&all.address).body;
    assert!(page.contains("other-set") && page.contains("orders-postgres") && !page.contains("alien-set"), "{page}");
    let page = http::get(&one.address).body;
    assert!(!page.contains("other-set") && page.contains("orders-postgres"), "{page}");
}

#[test]
fn it_ends_at_an_interrupt_though_somebody_looks_and_says_what_is_wrong_with_its_arguments() {
    let scene = Scene::new();
    let mut dashboard = scene.dashboard(&[]);
    let mut live = Open::start("GET", &format!("{}live/", dashboard.address), None, "");
    live.until("orders-postgres");
    let interrupted = Command::new("kill").args(["-INT", &dashboard.child.id().to_string()]).status().expect("kill runs");
    assert!(interrupted.success());
    assert_eq!(dashboard.child.wait().expect("it ends").code(), Some(0));

    let other = scene.dashboard(&[]);
    let port = http::parts(&other.address).0.rsplit(':').next().expect("a port").to_owned();
    let taken = scene.run(&["dashboard", "--port", &port]);
    assert_eq!(taken.code, Some(1));
    assert!(
        taken.stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")) && taken.stderr.contains("--port 0"),
        "{}",
        taken.stderr
    );
    let nowhere = scene.run(&["dashboard", "-n", "nowhere"]);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("there is no namespace nowhere"), "{}", nowhere.stderr);
    for wrong in [["-A", "-n", "shop"].as_slice(), &["--every", "0"], &["--port", "70000"]] {
        assert_eq!(scene.run(&[&["dashboard"], wrong].concat()).code, Some(2), "{wrong:?}");
    }
    assert!(scene.run(&["dashboard", "--help"]).stdout.contains("guardian dashboard -n shop"));
}
