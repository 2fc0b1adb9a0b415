//! A plot with a logarithmic x axis, as SVG, in colours that can be read on light and on dark pages.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 52.0;
const INK: &str = "#808080";

pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) color: &'static str,
    pub(crate) dashed: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

pub(crate) struct Plot {
    pub(crate) title: &'static str,
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    pub(crate) series: Vec<Series>,
}

impl Plot {
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let decades = points().map(|(x, _)| x.log10().ceil()).fold(1.0, f64::max);
        let step = tick_step(points().map(|(_, y)| *y).fold(1.0, f64::max));
        let top = (points().map(|(_, y)| *y).fold(1.0, f64::max) / step).ceil() * step;
        let x_of = |x: f64| LEFT + x.log10() / decades * (WIDTH - LEFT - RIGHT);
        let y_of = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);

        let mut svg = Svg::new();
        svg.text(LEFT, 24.0, "start", 15, self.title);
        svg.text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, "middle", 13, self.x_label);
        svg.text(LEFT - 8.0, TOP - 12.0, "end", 13, self.y_label);
        let mut y = 0.0;
        while y <= top {
            svg.line((LEFT, y_of(y)), (WIDTH - RIGHT, y_of(y)), if y > 0.0 { 0.25 } else { 1.0 });
            svg.text(LEFT - 8.0, y_of(y) + 4.0, "end", 12, &grouped(y));
            y += step;
        }
        let mut x = 1.0_f64;
        while x.log10() <= decades {
            svg.line((x_of(x), HEIGHT - BOTTOM), (x_of(x), HEIGHT - BOTTOM + 5.0), 1.0);
            svg.text(x_of(x), HEIGHT - BOTTOM + 20.0, "middle", 12, &grouped(x));
            x *= 10.0;
        }
        for (row, series) in self.series.iter().enumerate() {
            let at = (LEFT + if row < 2 { 0.0 } else { 310.0 }, if row % 2 == 0 { 48.0 } else { 68.0 });
            svg.path(series, &[at, (at.0 + 34.0, at.1)]);
            svg.text(at.0 + 42.0, at.1 + 4.0, "start", 12, &series.label);
            let points: Vec<_> = series.points.iter().map(|&(x, y)| (x_of(x), y_of(y))).collect();
            svg.path(series, &points);
            svg.dots(series, &points);
        }
        svg.finish()
    }
}

/// A step of 1, 2 or 5 times a power of ten, four to eight of which reach up to `most`.
fn tick_step(most: f64) -> f64 {
    let power = 10_f64.powf((most / 4.0).log10().floor());
    [5.0, 2.0, 1.0].map(|times| times * power).into_iter().find(|step| most / step >= 4.0).unwrap_or(power)
}

/// A whole number with its thousands set apart.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

struct Svg(String);

impl Svg {
    fn new() -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\" fill=\"none\">\n"
        ))
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, size: u32, text: &str) {
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"{INK}\">{text}</text>"
        ));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), opacity: f64) {
        self.put(format_args!(
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{INK}\" opacity=\"{opacity}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    fn path(&mut self, series: &Series, points: &[(f64, f64)]) {
        let mut path = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            write!(path, "{command}{x:.1} {y:.1}").expect("strings take all");
        }
        let dashes = if series.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        self.put(format_args!("<path d=\"{path}\" stroke=\"{}\" stroke-width=\"2\"{dashes}/>", series.color));
    }

    fn dots(&mut self, series: &Series, points: &[(f64, f64)]) {
        for (x, y) in points {
            self.put(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{}\"/>", series.color));
        }
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{element}").expect("strings take all");
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}
