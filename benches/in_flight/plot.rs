//! A plot with logarithmic axes, as SVG, in colours that are readable on light and dark pages.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 32.0;
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
    fn points(&self) -> impl Iterator<Item = (f64, f64)> + Clone {
        self.series.iter().flat_map(|series| series.points.iter().copied())
    }

    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let x_axis = Axis::over(self.points().map(|(x, _)| x), &[1.0], LEFT, WIDTH - RIGHT);
        let y_axis = Axis::over(self.points().map(|(_, y)| y), &[1.0, 2.0, 5.0], HEIGHT - BOTTOM, TOP);

        let mut svg = Svg::new();
        svg.text(LEFT, 24.0, "start", 15, self.title);
        svg.text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, "middle", 13, self.x_label);
        svg.text(8.0, TOP - 14.0, "start", 13, self.y_label);
        for (index, tick) in y_axis.ticks.iter().enumerate() {
            let y = y_axis.place(*tick);
            svg.line((LEFT, y), (WIDTH - RIGHT, y), if index > 0 { 0.25 } else { 1.0 });
            svg.text(LEFT - 8.0, y + 4.0, "end", 12, &grouped(*tick));
        }
        for tick in &x_axis.ticks {
            let x = x_axis.place(*tick);
            svg.line((x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 5.0), 1.0);
            svg.text(x, HEIGHT - BOTTOM + 20.0, "middle", 12, &grouped(*tick));
        }
        for (row, series) in self.series.iter().enumerate() {
            let at = (LEFT + if row < 2 { 0.0 } else { 310.0 }, if row % 2 == 0 { 48.0 } else { 68.0 });
            svg.path(series, &[at, (at.0 + 34.0, at.1)]);
            svg.text(at.0 + 42.0, at.1 + 4.0, "start", 12, &series.label);
            let points: Vec<_> = series.points.iter().map(|&(x, y)| (x_axis.place(x), y_axis.place(y))).collect();
            svg.path(series, &points);
            svg.dots(series, &points);
        }
        svg.finish()
    }
}

/// A logarithmic axis between two points of the picture.
struct Axis {
    /// From the first value to the last.
    ticks: Vec<f64>,
    from: f64,
    to: f64,
}

impl Axis {
    /// Ticks at the given multiples of powers of ten, as far as the values reach.
    fn over(values: impl Iterator<Item = f64> + Clone, multiples: &[f64], from: f64, to: f64) -> Self {
        let (low, high) = (values.clone().fold(f64::MAX, f64::min), values.fold(1.0, f64::max));
        let all: Vec<f64> =
            (0..10).flat_map(|power| multiples.iter().map(move |multiple| multiple * 10_f64.powi(power))).collect();
        let first = all.iter().rposition(|tick| *tick <= low).unwrap_or(0);
        let last = all.iter().position(|tick| *tick >= high).unwrap_or(all.len() - 1);
        Self { ticks: all[first..=last.max(first + 1)].to_vec(), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let (first, last) = (self.ticks[0].log10(), self.ticks[self.ticks.len() - 1].log10());
        self.from + (value.log10() - first) / (last - first) * (self.to - self.from)
    }
}

/// A whole number with thousands separators.
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
