//! Reports: what stands in them, and that a browser shows it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::browser::{Browser, OWN};
use crate::place::{Place, stderr};
/// The numbers behind a figure, as its link holds them.
fn csv(dom: &str, id: &str) -> Vec<Vec<String>> {
    let link = format!("download=\"{id}.csv\" href=\"data:text/csv;charset=utf-8,");
    let start = dom.find(&link).unwrap_or_else(|| panic!("no {id}")) + link.len();
    let encoded = dom[start..].split('"').next().unwrap();
    let mut bytes = Vec::new();
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let hex = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).unwrap();
    let rows = text.lines().skip(1);
    rows.map(|row| row.split(',').map(str::to_string).collect())
        .collect()
}

/// The cells of the table with this caption, row by row.
fn table(dom: &str, caption: &str) -> Vec<Vec<String>> {
    let start = dom.find(&format!("<caption>{caption}</caption>")).unwrap();
    let body = dom[start..].split("</table>").next().unwrap();
    let rows = body.split("<tr>").skip(2);
    rows.map(|row| {
        let cells = row.split("<td").skip(1);
        let cell = |cell: &str| {
            cell.split_once('>')
                .unwrap()
                .1
                .split('<')
                .next()
                .unwrap()
                .to_string()
        };
        cells.map(cell).collect()
    })
    .collect()
}

fn lines(run: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["kind"] == kind).collect()
}

/// Holds loss and learning rate in a page against the log it was made of.
fn check_numbers(page: &str, run: &Path) {
    let (steps, evaluations) = (lines(run, "step"), lines(run, "evaluation"));
    let loss = csv(page, "loss");
    assert_eq!(loss, table(page, "Loss"));
    assert_eq!(loss.len(), steps.len());
    for (row, step) in loss.iter().zip(&steps) {
        assert_eq!(
            row[0].parse::<u64>().unwrap(),
            step["step"].as_u64().unwrap()
        );
        assert_eq!(
            row[1].parse::<f64>().unwrap(),
            step["loss"].as_f64().unwrap()
        );
        let evaluation = evaluations.iter().find(|e| e["step"] == step["step"]);
        match evaluation {
            Some(of) => assert_eq!(
                row[2].parse::<f64>().unwrap(),
                of["nats_per_token"].as_f64().unwrap()
            ),
            None => assert_eq!(row[2], ""),
        }
    }
    let rates = csv(page, "learning-rate");
    assert_eq!(rates.len(), steps.len());
    for (row, step) in rates.iter().zip(&steps) {
        assert_eq!(row[1].parse::<f64>().unwrap(), step["lr"].as_f64().unwrap());
    }
}

#[test]
fn a_run_leaves_a_report_whose_numbers_are_its_logs() {
    let place = Place::new();
    place.succeed("--config sparse.toml --steps 20 --out run");
    let page = fs::read_to_string(place.path("run/report.html")).unwrap();
    check_numbers(&page, &place.path("run"));
    for words in [
        "Effective number of experts",
        "Learning rate",
        "hybrid-star",
        "training.steps",
    ] {
        assert!(page.contains(words), "no {words:?}");
    }
    for asking in ["<script", " src=", "url(", "href=\"http", "@import"] {
        assert!(!page.contains(asking), "{asking}");
    }

    // A line that is being written is no reason for none.
    let log = place.path("run/metrics.jsonl");
    let whole = fs::read(&log).unwrap();
    let cut = whole.len() - 20;
    fs::write(&log, &whole[..cut]).unwrap();
    let out = place.succeed("report run --out again.html --csv csv --svg svg");
    assert!(out.contains("Learning rate") && out.contains('█'), "{out}");
    let page = fs::read_to_string(place.path("again.html")).unwrap();
    assert!(page.contains("is not whole"));
    check_numbers(&page, &place.path("run"));
    let rows = fs::read_to_string(place.path("csv/loss.csv")).unwrap();
    assert_eq!(rows.lines().count(), 21);
    let svg = fs::read_to_string(place.path("svg/loss.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("nats per token"));

    // One that is damaged in the middle is.
    let mut text = String::from_utf8(whole).unwrap();
    text.insert(1, '?');
    fs::write(&log, text).unwrap();
    let message = place.refuse("report run");
    assert!(message.contains("metrics.jsonl: line 1"), "{message}");
}

#[test]
fn where_there_is_nothing_to_report_it_says_so() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    for (dir, words) in [
        ("empty", "compare.json"),
        ("nowhere", "there is no directory"),
        ("text.md", "compare.json"),
    ] {
        let message = place.refuse(&format!("report {dir}"));
        assert!(
            message.contains(dir) && message.contains(words),
            "{message}"
        );
    }
}

/// A folder of runs is no run; it is told which are there.
#[test]
fn what_is_near_is_named() {
    let place = Place::new();
    for dir in [
        "runs/b",
        "runs/c d",
        "runs/a/runs/pre/seed-1",
        "runs/a/empty",
    ] {
        fs::create_dir_all(place.path(dir)).unwrap();
    }
    for file in [
        "runs/b/config.toml",
        "runs/c d/probe.jsonl",
        "runs/a/compare.json",
        "runs/a/runs/pre/seed-1/config.toml",
    ] {
        place.write(file, "");
    }
    for (dir, named) in [
        (
            "runs",
            "name one of those there: runs/a, runs/b, 'runs/c d'",
        ),
        ("runs/a/runs", "did you mean runs/a/runs/pre/seed-1?"),
        ("runs/a/empty", "did you mean runs/a?"),
        ("runs/b/config.toml", "did you mean runs/b?"),
    ] {
        let message = place.refuse(&format!("report {dir}"));
        assert!(message.trim_end().ends_with(named), "{message}");
    }
    for number in 0..10 {
        fs::create_dir_all(place.path(&format!("runs/n{number}"))).unwrap();
        place.write(&format!("runs/n{number}/config.toml"), "");
    }
    let message = place.refuse("report runs");
    assert!(
        message.trim_end().ends_with("runs/n4 and 5 more"),
        "{message}"
    );
}

/// The same pictures as pixels: twice as many, drawn in their colours, with their words.
#[cfg(feature = "png")]
#[test]
fn pictures_become_pixels() {
    use resvg::tiny_skia::{Pixmap, PremultipliedColorU8};
    let place = Place::new();
    place.succeed("--config tiny.toml --device flex --out run");
    let output = place.run("report run --svg svg --png png");
    if stderr(&output).contains("needs a font") {
        assert_eq!(output.status.code(), Some(2));
        assert!(!place.path("svg").exists());
        println!("SKIPPED: no font on this machine (Debian: fonts-dejavu-core)");
        return;
    }
    assert!(output.status.success(), "{}", stderr(&output));
    let names = |dir: &str| {
        let files = fs::read_dir(place.path(dir)).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        names.sort();
        names
    };
    let (pixels, drawn) = (names("png"), names("svg"));
    assert!(pixels.len() >= 4);
    for (png, svg) in pixels.iter().zip(&drawn) {
        assert_eq!(png.file_stem(), svg.file_stem());
        let svg = fs::read_to_string(svg).unwrap();
        let size = |name: &str| {
            let value = svg.split(&format!(" {name}=\"")).nth(1).unwrap();
            value.split('"').next().unwrap().parse::<u32>().unwrap()
        };
        let map = Pixmap::load_png(png).unwrap();
        assert_eq!(
            [map.width(), map.height()],
            [2 * size("width"), 2 * size("height")]
        );
    }
    let loss = Pixmap::load_png(place.path("png/loss.png")).unwrap();
    let is = |colour: [u8; 3]| {
        move |pixel: &&PremultipliedColorU8| {
            [pixel.red(), pixel.green(), pixel.blue()] == colour && pixel.alpha() == 255
        }
    };
    // Paper, the curve of training, ink; and of that some where only words are, below the axis.
    for colour in [[0xfd, 0xfe, 0xff], [0x00, 0x72, 0xb2], [0x22, 0x27, 0x2e]] {
        assert!(
            loss.pixels().iter().any(|pixel| is(colour)(&pixel)),
            "{colour:x?}"
        );
    }
    let below = 2 * (280 - 40) * loss.width() as usize..2 * 280 * loss.width() as usize;
    let words = loss.pixels()[below].iter().filter(is([0x22, 0x27, 0x2e]));
    assert!(words.count() > 50);
}

/// A probe's measurements, as another command of this program wrote them.
#[test]
fn a_probe_has_a_report() {
    let place = Place::new();
    fs::create_dir(place.path("probe")).unwrap();
    place.write("probe/probe.jsonl", include_str!("probe.jsonl"));
    place.succeed("report probe --csv csv");
    let page = fs::read_to_string(place.path("probe/report.html")).unwrap();
    for words in [
        "4 layers",
        "Gradient norm of attention by layer, step 1",
        "Learning rates",
    ] {
        assert!(page.contains(words), "no {words:?}");
    }
    let lines = include_str!("probe.jsonl").lines();
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let layers = lines.iter().find(|line| line["kind"] == "layers").unwrap();
    let norms = layers["looks"][0]["gradient_norm"]["attention"]
        .as_array()
        .unwrap();
    let name = format!(
        "{} ({})",
        layers["placement"].as_str().unwrap(),
        layers["init"].as_str().unwrap()
    );
    let rows = csv(&page, "gradient-attention-4-first");
    let rows = rows.iter().filter(|row| row[0] == name);
    let values: Vec<f64> = rows.map(|row| row[2].parse().unwrap()).collect();
    let expected: Vec<f64> = norms.iter().map(|norm| norm.as_f64().unwrap()).collect();
    assert_eq!(values, expected);
}

/// Of every layer, the figures of each arm's last look, seed by seed.
#[test]
fn a_comparison_shows_its_layers() {
    let place = Place::new();
    place.succeed(
        "compare --config tiny.toml --device flex --placements pre,hybrid --seeds 2 --diagnostics 3 --out cmp",
    );
    let page = fs::read_to_string(place.path("cmp/report.html")).unwrap();
    let mut expected = Vec::new();
    for arm in ["pre", "hybrid"] {
        let mut points = Vec::new();
        for seed in [6198, 6199] {
            let run = place.path(&format!("cmp/runs/{arm}/seed-{seed}"));
            let last = lines(&run, "diagnostics").pop().unwrap();
            let layers = last["attention_entropy"].as_array().unwrap();
            let layers = layers.iter().map(|value| value.as_f64().unwrap());
            points.extend(layers.enumerate());
        }
        points.sort_by_key(|(layer, _)| *layer);
        expected.extend(points.into_iter().map(|point| (arm.to_string(), point)));
    }
    let rows = csv(&page, "attention-entropy").into_iter();
    let rows = rows.map(|row| {
        let point = (row[1].parse().unwrap(), row[2].parse().unwrap());
        (row[0].clone(), point)
    });
    assert_eq!(rows.collect::<Vec<(String, (usize, f64))>>(), expected);
    assert!(page.contains("gradient-attention-over-time-2.csv"));
}

/// Every page is whole, asks for nothing, and fits a telephone, in light and dark.
#[test]
fn a_browser_shows_the_pages() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let place = Place::new();
    place.succeed(
        "compare --config tiny.toml --device flex --placements pre,hybrid --seeds 3 --out cmp",
    );
    for page in ["cmp/report.html", "cmp/runs/pre/seed-6198/report.html"] {
        let page = place.path(page);
        let pictures = fs::read_to_string(&page)
            .unwrap()
            .matches("<figure")
            .count();
        assert!(pictures >= 4, "{pictures}");
        for (width, dark) in [(1200, false), (390, true)] {
            let shown = browser.show(&page, width, dark);
            assert_eq!(shown.complaints, Vec::<String>::new(), "{}", page.display());
            let outside = shown.asked.iter().filter(|address| {
                !address.starts_with("file:")
                    && !address.starts_with("data:")
                    && !OWN.iter().any(|host| address.contains(host))
            });
            assert_eq!(outside.collect::<Vec<_>>(), Vec::<&String>::new());
            assert_eq!(shown.dom.matches("</svg>").count(), pictures);
            assert!(shown.dom.trim_end().ends_with("</html>"));
        }
    }
    let run = place.path("cmp/runs/pre/seed-6198");
    let shown = browser.show(&run.join("report.html"), 1200, false);
    check_numbers(&shown.dom, &run);

    let page = place.path("cmp/report.html");
    let light = browser.picture(&page, 1200, false);
    let dark = browser.picture(&page, 1200, true);
    assert_ne!(light, dark);
    // A blank page of this size takes a few kilobytes.
    assert!(light.len() > 40_000, "{} bytes", light.len());
}
