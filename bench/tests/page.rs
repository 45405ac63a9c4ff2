//! The page of `sheave-bench report` in a real browser: `make bench-page`, which installs one.

#[path = "page/browser.rs"]
mod browser;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use browser::Browser;

/// What a reader would see, as numbers.
const PROBE: &str = "(() => {
    const style = element => getComputedStyle(element);
    const outside = [...document.body.querySelectorAll('*')].filter(element => !element.closest('.scroll')
        && element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5);
    return {
        title: document.title,
        width: innerWidth,
        scrolls_to: document.documentElement.scrollWidth,
        outside: outside.map(element => element.outerHTML.slice(0, 120)),
        paper: style(document.body).backgroundColor,
        ink: style(document.body).color,
        drawings: [...document.querySelectorAll('svg')].map(svg => ({
            name: svg.querySelector('title').textContent,
            box: [svg.getBoundingClientRect().width, svg.getBoundingClientRect().height],
            shapes: svg.querySelectorAll('rect, circle, polyline').length,
            texts: [...svg.querySelectorAll('text')].map(text => [text.textContent.trim(), text.getBoundingClientRect().height]),
            foreign: [...svg.querySelectorAll('rect, circle, polyline, line, text')].map(shape => [style(shape).fill, style(shape).stroke])
                .flat().filter(colour => /^rgb\\(19[2-4], 0, \\d\\)$/.test(colour)).length,
        })),
        tables: document.querySelectorAll('table').length,
        sections: [...document.querySelectorAll('section h2')].map(head => head.textContent),
        headless: [...document.querySelectorAll('table')].filter(table => !table.caption || !table.tHead).length,
        scripts: document.scripts.length,
    };
})()";

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

fn report(results: &Path, page: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_sheave-bench"))
        .arg("report")
        .arg(results)
        .arg("--output")
        .arg(page)
        .output()
        .expect("running the bench");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Asserts what must be true of every page and returns what was seen.
fn look(browser: &mut Browser, page: &Path, width: u32, scheme: &str) -> Value {
    browser.show(page, width, scheme);
    let seen = browser.evaluate(PROBE);
    let case = format!("{width} px, {scheme}");
    assert_eq!(seen["width"], width, "{case}: the page is as wide as the screen");
    assert!(
        seen["scrolls_to"].as_u64().expect("a number") <= u64::from(width),
        "{case}: it scrolls sideways: {}",
        seen["outside"]
    );
    assert_eq!(seen["outside"], json!([]), "{case}");
    assert_eq!((&seen["scripts"], &seen["headless"]), (&json!(0), &json!(0)), "{case}");
    for drawing in seen["drawings"].as_array().expect("a list") {
        let [across, up] = [0, 1].map(|side| drawing["box"][side].as_f64().expect("a number"));
        assert!(across >= 280.0 && up >= 80.0, "{case}: {drawing}");
        assert!(drawing["shapes"].as_u64().expect("a number") >= 3, "{case}: {drawing}");
        assert_eq!(drawing["foreign"], 0, "{case}: a colour that the style sheet does not know: {}", drawing["name"]);
        let mut texts = drawing["texts"].as_array().expect("a list").iter().filter(|text| text[0] != "");
        assert!(texts.clone().count() >= 4, "{case}: {drawing}");
        assert!(texts.all(|text| text[1].as_f64().expect("a number") >= 9.0), "{case}: too small to read: {drawing}");
    }
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{case}: {complaints:?}");
    seen
}

/// Of `rgb(1, 2, 3)`.
fn brightness(colour: &Value) -> u32 {
    colour
        .as_str()
        .expect("a colour")
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|part| part.parse::<u32>().ok())
        .sum()
}

#[test]
#[ignore = "needs chromium-headless-shell: make bench-page"]
fn the_page_is_drawn_on_phones_and_screens_in_light_and_dark() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("report.html");
    report(&results(), &page);
    let mut browser = Browser::start();
    for width in [360, 1280] {
        for scheme in ["light", "dark"] {
            let seen = look(&mut browser, &page, width, scheme);
            assert!(seen["sections"].as_array().unwrap().len() >= 5, "{seen}");
            assert!(seen["drawings"].as_array().unwrap().len() >= 6, "{seen}");
            let light = brightness(&seen["paper"]) > brightness(&seen["ink"]);
            assert_eq!(light, scheme == "light", "{width} px, {scheme}: {} on {}", seen["ink"], seen["paper"]);
        }
    }
}

#[test]
#[ignore = "needs chromium-headless-shell: make bench-page"]
fn a_hostile_file_neither_runs_nor_widens_the_page() {
    const MARKUP: &str =
        "</title></style><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">";
    let directory = tempfile::tempdir().unwrap();
    for (place, file) in fs::read_dir(results()).unwrap().enumerate() {
        let mut result: Value = serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
        result["machine"]["model"] = json!(MARKUP);
        result["versions"]["nft"] = json!(MARKUP);
        result["command_line"] = json!(MARKUP.to_owned() + &"w".repeat(2_000));
        fs::write(directory.path().join(format!("{place}{}.json", "w".repeat(200))), result.to_string()).unwrap();
    }
    fs::write(directory.path().join("broken.json"), MARKUP).unwrap();
    let page = directory.path().join("report.html");
    report(directory.path(), &page);
    let mut browser = Browser::start();
    for width in [360, 1280] {
        let seen = look(&mut browser, &page, width, "light");
        assert_eq!(seen["title"], "sheave, measured");
    }
}
