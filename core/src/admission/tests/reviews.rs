//! What is read of a review, whatever becomes of it.

use crate::admission::{Review, Verb};

/// A body with these members of the request.
fn body(request: &str) -> String {
    format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u",{request}}}}}"#)
}

const EVICTION: &str = r#""kind":{"group":"policy","version":"v1","kind":"Eviction"},"subResource":"eviction",
    "resource":{"group":"","version":"v1","resource":"pods"},"operation":"CREATE","namespace":"redis","name":"redis-0","oldObject":null"#;

#[test]
fn a_dry_run_of_an_eviction_may_be_asked_for_in_its_delete_options() {
    let cases = [
        (r#""dryRun":false,"object":{"deleteOptions":{"dryRun":["All"]}}"#, true),
        (r#""dryRun":true,"object":{"deleteOptions":{}}"#, true),
        (r#""dryRun":true,"object":null"#, true),
        (r#""dryRun":false,"object":{"deleteOptions":{"dryRun":[]}}"#, false),
        (r#""dryRun":false,"object":{"deleteOptions":{"dryRun":null,"preconditions":{"uid":"p"}}}"#, false),
        (r#""dryRun":false,"object":{"deleteOptions":null}"#, false),
        (r#""object":{"metadata":{"name":"redis-0"}}"#, false),
        (r#""object":5"#, false),
    ];
    for (rest, dry) in cases {
        let body = body(&format!("{EVICTION},{rest}"));
        let review = Review::parse(&body).unwrap();
        assert_eq!(review.dry_run, dry, "{rest}");
        assert_eq!(
            (review.kind.as_str(), review.resource.plural.as_ref(), review.verb),
            ("policy/v1/Eviction", "pods", Verb::Create)
        );
    }
}

#[test]
fn delete_options_of_anything_else_do_not_make_a_dry_run() {
    let body = body(
        r#""kind":{"group":"apps","version":"v1","kind":"StatefulSet"},"operation":"CREATE","object":{"deleteOptions":{"dryRun":["All"]}}"#,
    );
    assert!(!Review::parse(&body).unwrap().dry_run);
}

#[test]
fn options_that_cannot_be_read_excuse_no_deletion() {
    let cases = [
        (r#"{"propagationPolicy":"Orphan"}"#, true),
        (r#"{"orphanDependents":true,"preconditions":{"uid":"s"}}"#, true),
        (r#"{"propagationPolicy":"orphan"}"#, false),
        (r#"{"propagationPolicy":"Background","gracePeriodSeconds":0}"#, false),
        (r#"{"propagationPolicy":null,"orphanDependents":null,"dryRun":null}"#, false),
        (r#"{"propagationPolicy":["Orphan"]}"#, false),
        (r#""Orphan""#, false),
        ("null", false),
    ];
    for (options, orphans) in cases {
        let kind = r#""kind":{"group":"apps","version":"v1","kind":"StatefulSet"},"operation":"DELETE","#;
        let body = body(&format!(r#"{kind}"options":{options}"#));
        assert_eq!(Review::parse(&body).unwrap().delete_options().orphans(), orphans, "{options}");
    }
}
