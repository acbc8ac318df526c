//! A chart as SVG, without a library: a curve a contender, its interval as a shade, its name at its
//! end.
//!
//! Every colour is of middle brightness and the ground is left open, so that it can be seen on a
//! light page and on a dark one. Fonts are the reader's.

use std::fmt::{self, Write};

use super::{
    curves::{Chart, Curve},
    number::{count, short},
    scale::{Linear, Logarithmic, spread},
};

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 440.0;
/// Where the axes begin and end; the labels are to the right.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 650.0;
const TOP: f64 = 86.0;
const BOTTOM: f64 = 388.0;
/// Height of a label.
const LINE: f64 = 19.0;
/// Width of a number of flows.
const COLUMN: f64 = 44.0;

const STYLE: &str = "\
text{font:14px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#77818c}\
.title{font-size:19px;font-weight:600}\
.end{font-weight:600}\
.value{font-weight:400;fill-opacity:.85}\
.grid{stroke:#77818c;stroke-opacity:.22}\
.base{stroke:#77818c;stroke-opacity:.6}\
.curve{fill:none;stroke-width:2.6;stroke-linejoin:round;stroke-linecap:round}\
.shade{fill-opacity:.17}\
.leader{stroke-opacity:.55;fill:none}";

/// How a contender is drawn.
#[derive(Clone, Copy)]
struct Look {
    colour: &'static str,
    dashes: &'static str,
}

/// Ours stand out; those without NAT are bounds, drawn like rulers.
fn look(name: &str, number: usize) -> Look {
    let solid = |colour| Look { colour, dashes: "none" };
    match name {
        "xdp" => solid("#2f81f7"),
        "tc" => solid("#1a9e6f"),
        "nft" => solid("#e0662c"),
        "ceiling" => Look { colour: "#8a939d", dashes: "2 5" },
        "forward" => Look { colour: "#8a939d", dashes: "9 5" },
        _ => solid(["#a371f7", "#d4509b", "#b08800", "#3aa0b4"][number % 4]),
    }
}

/// The whole file; nothing where the chart has no point.
#[must_use]
pub fn draw(chart: &Chart) -> Option<String> {
    let mut text = String::new();
    let frame = Frame::around(chart)?;
    // Writing to a string does not fail.
    frame.write(chart, &mut text).ok()?;
    Some(text)
}

/// The axes of a chart.
struct Frame {
    across: Logarithmic,
    up: Linear,
    flows: Vec<f64>,
}

impl Frame {
    fn around(chart: &Chart) -> Option<Self> {
        let points = || chart.curves.iter().flat_map(|curve| &curve.points);
        let mut flows: Vec<f64> = points().map(|(flows, _)| *flows).collect();
        flows.sort_by(f64::total_cmp);
        flows.dedup();
        let largest = points().map(|(_, point)| point.high).fold(0.0, f64::max);
        Some(Self {
            across: Logarithmic::new([*flows.first()?, *flows.last()?], [LEFT + 14.0, RIGHT]),
            up: Linear::new(largest, [BOTTOM, TOP]),
            flows,
        })
    }

    fn write(&self, chart: &Chart, text: &mut String) -> fmt::Result {
        let (title, subtitle) = (escaped(&chart.title), escaped(&chart.subtitle));
        writeln!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
             <title>{title}</title>\n<desc>{subtitle}</desc>\n<style>{STYLE}</style>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"30\">{title}</text>\n\
             <text x=\"{LEFT}\" y=\"54\">{subtitle}</text>"
        )?;
        self.axes(text)?;
        // Bounds first, ours last: who matters most is on top.
        let mut order: Vec<(usize, &Curve)> = chart.curves.iter().enumerate().collect();
        order.sort_by_key(|(_, curve)| match curve.name.as_str() {
            "ceiling" | "forward" => 0,
            "xdp" | "tc" => 2,
            _ => 1,
        });
        for (number, curve) in order {
            self.curve(curve, look(&curve.name, number), text)?;
        }
        self.names(&chart.curves, text)?;
        writeln!(text, "</svg>")
    }

    fn axes(&self, text: &mut String) -> fmt::Result {
        for mark in self.up.marks() {
            let (y, class) = (self.up.place(mark), if mark > 0.0 { "grid" } else { "base" });
            writeln!(
                text,
                "<path class=\"{class}\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 10.0,
                y + 5.0,
                mark_text(mark),
            )?;
        }
        let places: Vec<f64> = self.flows.iter().map(|flows| self.across.place(*flows)).collect();
        for ((flows, x), text_x) in self.flows.iter().zip(&places).zip(spread(&places, COLUMN)) {
            writeln!(
                text,
                "<path class=\"base\" d=\"M{x:.1} {BOTTOM}v6\"/>\
                 <text x=\"{text_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                BOTTOM + 24.0,
                count(*flows),
            )?;
        }
        writeln!(text, "<text x=\"{:.1}\" y=\"{:.1}\">flows</text>", RIGHT + 28.0, BOTTOM + 24.0)
    }

    fn curve(&self, curve: &Curve, look: Look, text: &mut String) -> fmt::Result {
        let Look { colour, dashes } = look;
        let at = |flows: f64, value: f64| {
            format!("{:.1} {:.1}", self.across.place(flows), self.up.place(value))
        };
        let there = curve.points.iter().map(|(flows, point)| at(*flows, point.high));
        let back = curve.points.iter().rev().map(|(flows, point)| at(*flows, point.low));
        let around = there.chain(back).collect::<Vec<_>>().join("L");
        let along = curve.points.iter().map(|(flows, point)| at(*flows, point.median));
        let along = along.collect::<Vec<_>>().join("L");
        writeln!(
            text,
            "<path class=\"shade\" fill=\"{colour}\" d=\"M{around}Z\"/>\n\
             <path class=\"curve\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\" \
             d=\"M{along}\"/>"
        )?;
        for (flows, point) in &curve.points {
            writeln!(
                text,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.6\" fill=\"{colour}\">\
                 <title>{}, {} flows: {} ({} to {})</title></circle>",
                self.across.place(*flows),
                self.up.place(point.median),
                escaped(&curve.name),
                count(*flows),
                short(point.median),
                short(point.low),
                short(point.high),
            )?;
        }
        Ok(())
    }

    /// Each curve's name and last value, right of its end, with a line to it.
    fn names(&self, curves: &[Curve], text: &mut String) -> fmt::Result {
        let ends: Vec<_> = curves
            .iter()
            .enumerate()
            .filter_map(|(number, curve)| Some((number, curve, curve.points.last()?)))
            .collect();
        let own: Vec<f64> =
            ends.iter().map(|(_, _, (_, point))| self.up.place(point.median)).collect();
        for ((number, curve, (flows, point)), (from, to)) in
            ends.iter().zip(own.iter().zip(spread(&own, LINE)))
        {
            let colour = look(&curve.name, *number).colour;
            let start = self.across.place(*flows) + 7.0;
            writeln!(
                text,
                "<path class=\"leader\" stroke=\"{colour}\" \
                 d=\"M{start:.1} {from:.1}L{:.1} {from:.1}L{:.1} {to:.1}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">{} \
                 <tspan class=\"value\">{}</tspan></text>",
                (RIGHT + 7.0).max(start),
                RIGHT + 22.0,
                RIGHT + 28.0,
                to + 5.0,
                escaped(&curve.name),
                short(point.median),
            )?;
        }
        Ok(())
    }
}

/// Marks are round, and need no digit more than they have.
fn mark_text(mark: f64) -> String {
    if mark >= 1e4 { count(mark) } else { format!("{}", (mark * 1e6).round() / 1e6) }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::Estimate;

    fn chart(names: &[&str]) -> Chart {
        let at =
            |median: f64| Estimate { median, low: median - 9.0, high: median + 9.0, rounds: 5 };
        let curve = |name: &&str| Curve {
            name: (*name).to_owned(),
            points: vec![(1.0, at(270.0)), (1e3, at(280.0)), (1e6, at(500.0))],
        };
        Chart {
            name: "cost".into(),
            title: "Cost <of> a packet".into(),
            subtitle: "ns".into(),
            curves: names.iter().map(curve).collect(),
        }
    }

    #[test]
    fn every_curve_has_its_points_and_its_name_at_its_end() {
        let text = draw(&chart(&["xdp", "R&D"])).expect("a drawing");
        assert_eq!(text.matches("<circle").count(), 6);
        assert_eq!(text.matches("class=\"end\"").count(), 2);
        assert!(text.contains("R&amp;D <tspan") && text.contains("Cost &lt;of&gt; a packet"));
    }

    #[test]
    fn everything_drawn_is_inside_the_picture() {
        let text = draw(&chart(&["xdp", "tc", "nft", "forward", "ceiling", "einat"])).expect("it");
        for (name, limit) in
            [(" cx=\"", WIDTH), (" x=\"", WIDTH), (" cy=\"", HEIGHT), (" y=\"", HEIGHT)]
        {
            for part in text.split(name).skip(1) {
                let number = part.split('"').next().and_then(|number| number.parse().ok());
                let number: f64 = number.expect("a number");
                assert!((0.0..=limit).contains(&number), "{name}{number}");
            }
        }
    }

    #[test]
    fn a_chart_without_points_is_not_drawn() {
        assert!(draw(&chart(&[])).is_none());
    }
}
