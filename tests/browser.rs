//! The dashboard as a browser shows it. `make browser` installs Chromium where it is missing, and runs these.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test ends where it fails")]

#[allow(dead_code, reason = "shared with tests/online.rs, which uses more of it")]
mod command;
#[path = "browser/driver.rs"]
mod driver;
#[allow(dead_code, reason = "shared with tests/online.rs, which uses more of it")]
mod http;
#[allow(dead_code, reason = "shared with tests/online.rs, which uses more of it")]
mod scene;

use std::path::Path;

use base64::Engine as _;
use driver::Browser;
use scene::Scene;
use serde_json::{Value, json};

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
/// It is told that it is kept current.
const LIVE: &str = "document.getElementById('live').textContent === 'live'";

/// A browser at a page that is kept current.
fn at(address: &str) -> Browser {
    let browser = Browser::start();
    browser.go(address);
    browser.until(LIVE);
    browser
}

#[test]
fn each_page_loads_with_its_style_and_script_and_nothing_is_said_on_the_console() {
    let scene = Scene::new();
    let dashboard = scene.dashboard(&[]);
    let browser = at(&dashboard.address);
    browser.until("document.querySelector('time.age').textContent.endsWith('ago')");
    browser.go(&format!("{}sets/shop/redis", dashboard.address));
    browser.until(LIVE);
    assert_eq!(browser.value("document.title"), "redis in shop - guardian");
    assert_eq!(browser.value("getComputedStyle(document.querySelector('table')).borderRadius"), "8px", "the style is in force");
    let loaded = browser.value("performance.getEntriesByType('resource').map((entry) => entry.name)");
    let own = |entry: &Value| entry.as_str().is_some_and(|address| address.starts_with(&dashboard.address));
    assert!(loaded.as_array().expect("a list").iter().all(own), "{loaded}");
    assert_eq!(browser.console(), Vec::<String>::new());
    // The same test sees a violation where there is one.
    browser.value("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">')");
    assert!(browser.console().iter().any(|line| line.contains("Content Security Policy")));
}

#[test]
fn what_changes_is_seen_without_a_reload_and_the_focus_stays() {
    let scene = Scene::new();
    let dashboard = scene.dashboard(&[]);
    let browser = at(&dashboard.address);
    browser.value("(window.mark = 1, document.querySelector('#sets a[href$=\"/etcd\"]').focus())");
    let record = scene.record(0.0, "etcd-1", ["LivenessFailed", "rejoin", "Failed"], 1, "<img src=x onerror=alert(1)>");
    scene.ledger("etcd", &json!({}), &json!({}), &[record]);
    browser.until("document.querySelector('#sets').textContent.includes('LivenessFailed')&&document.querySelector('#sets').textContent.includes('etcd-1')");
    assert_eq!(browser.value("[window.mark, document.activeElement.textContent]"), json!([1, "etcd"]));
    browser.press(ENTER, 1);
    browser.until("document.title.startsWith('etcd in shop')");
    browser.until(LIVE);
    assert_eq!(
        browser.value("[document.images.length, document.querySelector('#history td.message').textContent]"),
        json!([0, "<img src=x onerror=alert(1)>"])
    );
    scene.api.world(|world| {
        let key = guardian_core::sim::Resource::new("apps/v1", "statefulsets").named("shop", "etcd");
        world.delete(&key).map(drop).expect("the set");
    });
    browser.until("document.querySelector('#head').textContent.includes('There is no StatefulSet etcd')");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn the_keyboard_reaches_everything_and_the_focus_can_be_seen() {
    let scene = Scene::new();
    let dashboard = scene.dashboard(&[]);
    let browser = at(&dashboard.address);
    let focused = "document.activeElement.textContent";
    let seen = "getComputedStyle(document.activeElement).outlineStyle !== 'none'";
    browser.press(TAB, 1);
    assert_eq!(browser.value(&format!("[{focused}, {seen}]")), json!(["Skip to the content", true]));
    assert_eq!(browser.value("document.activeElement.getBoundingClientRect().top >= 0"), true, "it is on the page then");
    browser.press(ENTER, 1);
    assert_eq!(browser.value("document.activeElement.id"), "main");
    let mut reached = Vec::new();
    for _ in 0..6 {
        browser.press(TAB, 1);
        assert_eq!(browser.value(seen), true);
        reached.push(browser.value(focused).as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(reached, ["etcd", "kafka", "mail", "orders-postgres", "redis", "search"]);
    let nameless = "[...document.querySelectorAll('svg')].filter((svg) => !svg.closest('[aria-hidden=true]') && !svg.closest('[aria-label]')).length";
    browser.go(&format!("{}sets/shop/redis", dashboard.address));
    assert_eq!(browser.value(nameless), 0, "each drawing has a text in its place, or is none");
    let bare = "[...document.querySelectorAll('table')].filter((t) => !t.querySelector('thead th[scope=col]') || !(t.ariaLabel || t.getAttribute('aria-labelledby'))).length";
    assert_eq!(browser.value(bare), 0, "each table has headings and a name");
}

/// The ratio of the contrast (WCAG 2) of each visible text with what is behind it, the smallest first.
const CONTRAST: &str = "(() => { \
    const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; \
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); \
    const parts = (color) => color.match(/[\\d.]+/g).map(Number); \
    const behind = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; }; \
    const told = []; \
    for (const e of document.querySelectorAll('body *')) { \
      if (!e.checkVisibility() || e.closest('svg') || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue; \
      const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))]; \
      told.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 30)]); \
    } \
    return told.sort((a, b) => a[0] - b[0])[0]; })()";

#[test]
fn it_is_readable_in_the_light_and_in_the_dark() {
    let scene = Scene::new();
    let dashboard = scene.dashboard(&[]);
    let browser = at(&dashboard.address);
    let background = "getComputedStyle(document.body).backgroundColor";
    let mut backgrounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.tools("Emulation.setEmulatedMedia", &json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}));
        for page in ["", "sets/shop/redis", "sets/shop/orders-postgres"] {
            browser.go(&format!("{}{page}", dashboard.address));
            let least = browser.value(CONTRAST);
            assert!(least[0].as_f64().is_some_and(|ratio| ratio >= 4.5), "{scheme}, {page}: {least}");
        }
        backgrounds.push(browser.value(background));
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
}

#[test]
fn at_400_pixels_nothing_has_to_be_scrolled_sideways() {
    let scene = Scene::new();
    let long = "a-message-without-any-blank-".repeat(20);
    scene.ledger("mail", &json!({}), &json!({}), &[scene.record(1.0, "mail-0", ["Crash", "rejoin", "Failed"], 1, &long)]);
    let dashboard = scene.dashboard(&[]);
    let browser = Browser::start();
    for width in [400, 700, 1280] {
        let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        browser.tools("Emulation.setDeviceMetricsOverride", &size);
        for page in ["", "sets/shop/redis", "sets/shop/mail", "sets/shop/none"] {
            browser.go(&format!("{}{page}", dashboard.address));
            let wide = "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('svg')).map((e) => e.outerHTML.slice(0, 80))";
            assert_eq!(
                browser.value(&format!("[document.documentElement.scrollWidth, {wide}]")),
                json!([width, []]),
                "{width}, {page}"
            );
        }
    }
}

/// Draws the pictures of docs/dashboard.md, into the folder that SCREENSHOTS names.
#[test]
fn pictures() {
    let Ok(folder) = std::env::var("SCREENSHOTS") else { return };
    let scene = Scene::new();
    let dashboard = scene.dashboard(&["--every", "1"]);
    let browser = at(&format!("{}sets/shop/redis", dashboard.address));
    // At the start the same is read some times; 60 readings later nothing of that is left.
    for second in 1..75 {
        let before = browser.value("document.querySelector('#plots').dataset.v");
        scene.controller(f64::from(second));
        browser.until(&format!("document.querySelector('#plots').dataset.v !== {before}"));
    }
    for (scheme, page, height) in
        [("light", "", 640), ("dark", "sets/shop/redis", 1330), ("light", "sets/shop/redis", 1330), ("dark", "", 640)]
    {
        let size = json!({"width": 1200, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.tools("Emulation.setDeviceMetricsOverride", &size);
        browser.tools("Emulation.setEmulatedMedia", &json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}));
        browser.go(&format!("{}{page}", dashboard.address));
        browser.until(LIVE);
        let drawn = browser.tools("Page.captureScreenshot", &json!({"format": "png", "optimizeForSpeed": false}));
        let name = format!("dashboard-{}-{scheme}.png", if page.is_empty() { "start" } else { "set" });
        let bytes = base64::engine::general_purpose::STANDARD.decode(drawn["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(Path::new(&folder).join(name), bytes).expect("a file");
    }
}
