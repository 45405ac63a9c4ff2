//! Plots, as SVG that takes its colours from the page.
//!
//! Colours are the page's business: light and dark differ. So each role has a colour of its own here, which the style sheet replaces
//! (a rule of CSS goes before an attribute of SVG).

use anyhow::{Result, anyhow};
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::DrawingArea;
use plotters::prelude::{
    Circle, Color as _, IntoDrawingArea as _, IntoFont as _, LineSeries, RGBColor, Rectangle, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{ShapeStyle, TRANSPARENT, TextStyle};

use crate::results::LARGEST;

/// A picture of numbers that stand in a table, too.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) caption: String,
    pub(super) drawing: Drawing,
}

#[derive(Debug)]
pub(super) enum Drawing {
    /// Each bar is made of the same parts, one after the other.
    Bars {
        parts: Vec<String>,
        bars: Vec<Bar>,
    },
    Lines {
        x: Axis,
        y: Axis,
        lines: Vec<Line>,
    },
}

#[derive(Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) parts: Vec<f64>,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

#[derive(Debug)]
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) scale: Scale,
}

/// Where a value stands on its axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// By decades.
    Logarithmic,
    /// Percentiles, by the nines of them: 0, 90, 99, 99.9 are as far apart as each other.
    Nines,
}

/// Three units to a pixel of a phone: plotters places everything on whole units.
const UNIT: i32 = 3;
const WIDTH: i32 = 360 * UNIT;
const HEIGHT: i32 = 250 * UNIT;
const BAR: i32 = 50 * UNIT;
const FONT: i32 = 14 * UNIT;
/// Colours that the style sheet knows; after the last, the first comes again.
pub(super) const COLOURS: usize = 8;
const INK: RGBColor = RGBColor(0xc1, 0, 0);
const GRID: RGBColor = RGBColor(0xc2, 0, 0);
/// No number of a result but zero is smaller: below, an axis could not be divided.
const SMALLEST: f64 = 1e-9;

type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Chart<'c, 's> = ChartContext<'c, SVGBackend<'s>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Plot {
    /// What its colours stand for, in their order.
    pub(super) fn legend(&self) -> Vec<&str> {
        match &self.drawing {
            Drawing::Bars { parts, .. } => parts.iter().map(String::as_str).collect(),
            Drawing::Lines { lines, .. } => lines.iter().map(|line| line.name.as_str()).collect(),
        }
    }

    /// One `<svg>` element.
    ///
    /// # Errors
    /// If plotters cannot draw it, which no number of a result makes happen.
    pub(super) fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        let bars = match &self.drawing {
            Drawing::Bars { bars, .. } => i32::try_from(bars.len())?,
            Drawing::Lines { .. } => 0,
        };
        let height = if bars > 0 { BAR * bars + BAR } else { HEIGHT };
        {
            let area = SVGBackend::with_string(&mut svg, (u32::try_from(WIDTH)?, u32::try_from(height)?)).into_drawing_area();
            match &self.drawing {
                Drawing::Bars { bars, .. } => draw_bars(&area, bars)?,
                Drawing::Lines { x, y, lines } => draw_lines(&area, x, y, lines)?,
            }
            area.present().map_err(|error| anyhow!("drawing {}: {error}", self.caption))?;
        }
        Ok(svg)
    }
}

impl Scale {
    /// `None` for what has no place on it.
    fn place(self, value: f64) -> Option<f64> {
        let place = match self {
            Self::Linear if value.abs() < SMALLEST => 0.0,
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
            Self::Nines => -(1.0 - value / 100.0).log10(),
        };
        (place.is_finite() && place.abs() <= LARGEST).then_some(place)
    }

    /// From where to where an axis goes that has to hold these places.
    fn range(self, places: impl Iterator<Item = f64>) -> (f64, f64) {
        let (least, most) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), place| (least.min(place), most.max(place)));
        if least > most {
            return (0.0, 1.0);
        }
        match self {
            Self::Linear => (least.min(0.0), if most > 0.0 { most * 1.08 } else { 1.0 }),
            Self::Nines => (0.0, most.max(1.0) + 0.1),
            // Whole decades: only these have a label.
            Self::Logarithmic => (least.floor(), most.ceil().max(least.floor() + 1.0)),
        }
    }

    /// How many labels an axis of this length has room for, or has.
    fn labels(self, length: f64) -> usize {
        match self {
            Self::Linear => 7,
            // One for each decade, as long as they fit: between two of them there is no round number.
            Self::Logarithmic | Self::Nines => (1_u8..9).find(|count| f64::from(*count) > length).unwrap_or(9).into(),
        }
    }

    /// At a place; nothing where there is no round number.
    fn label(self, place: f64) -> String {
        let whole = (place - place.round()).abs() < 1e-6;
        match self {
            Self::Linear => short(place),
            Self::Logarithmic if whole => short(10_f64.powf(place.round())),
            Self::Nines if whole => format!("{} %", 100.0 - 100.0 * 10_f64.powf(-place.round())),
            Self::Logarithmic | Self::Nines => String::new(),
        }
    }
}

/// As narrow as it can be said.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // Four digits behind the point are below what any axis here tells apart; `f64` leaves zeros at the end away.
    format!("{}{unit}", (value * 1e4).round() / 1e4)
}

fn draw_bars(area: &Area<'_>, bars: &[Bar]) -> Result<()> {
    let sum = |bar: &Bar| bar.parts.iter().filter(|part| **part > 0.0).sum::<f64>();
    let (_, most) = Scale::Linear.range(bars.iter().map(sum).filter_map(|sum| Scale::Linear.place(sum)));
    let count = f64::from(u32::try_from(bars.len())?);
    let mut chart = ChartBuilder::on(area)
        .margin_left(8 * UNIT)
        .margin_right(8 * UNIT)
        .x_label_area_size(34 * UNIT)
        .build_cartesian_2d(0.0..most, 0.0..count)
        .map_err(|error| anyhow!("{error}"))?;
    mesh(&mut chart, ("ms", Scale::Linear, most), None)?;
    for (bar, place) in bars.iter().zip((0_u32..).map(f64::from)) {
        // The first stands on top. A name has the upper half of its place.
        let (floor, ceiling) = (count - place - 0.9, count - place - 0.48);
        let mut from = 0.0_f64;
        let boxes = bar.parts.iter().enumerate().filter(|(_, part)| **part > 0.0).map(|(colour, part)| {
            let left = from.min(most);
            from += part.min(LARGEST);
            Rectangle::new([(left, floor), (from.min(most), ceiling)], filled(colour))
        });
        chart.draw_series(boxes).map_err(|error| anyhow!("{error}"))?;
        let name = Text::new(bar.name.clone(), (0.0, ceiling + 0.06), text(HPos::Left, VPos::Bottom));
        chart.draw_series(std::iter::once(name)).map_err(|error| anyhow!("{error}"))?;
    }
    Ok(())
}

fn draw_lines(area: &Area<'_>, x: &Axis, y: &Axis, lines: &[Line]) -> Result<()> {
    let placed: Vec<Vec<(f64, f64)>> = lines
        .iter()
        .map(|line| line.points.iter().filter_map(|(across, up)| Some((x.scale.place(*across)?, y.scale.place(*up)?))).collect())
        .collect();
    let (left, right) = x.scale.range(placed.iter().flatten().map(|(across, _)| *across));
    let (bottom, top) = y.scale.range(placed.iter().flatten().map(|(_, up)| *up));
    let mut chart = ChartBuilder::on(area)
        .margin_top(10 * UNIT)
        .margin_right(18 * UNIT)
        .x_label_area_size(36 * UNIT)
        .y_label_area_size(52 * UNIT)
        .build_cartesian_2d(left..right, bottom..top)
        .map_err(|error| anyhow!("{error}"))?;
    mesh(&mut chart, (&x.name, x.scale, right - left), Some((&y.name, y.scale, top - bottom)))?;
    for (colour, points) in placed.into_iter().enumerate() {
        let dots: Vec<_> = points.iter().map(|point| Circle::new(*point, 3 * UNIT, filled(colour))).collect();
        let style = ShapeStyle { color: role(colour).to_rgba(), filled: false, stroke_width: 2 * UNIT.unsigned_abs() };
        chart.draw_series(LineSeries::new(points, style)).map_err(|error| anyhow!("{error}"))?;
        chart.draw_series(dots).map_err(|error| anyhow!("{error}"))?;
    }
    Ok(())
}

/// Grid and axes, each with its name, its scale and how long it is; without `y`, only the horizontal one.
fn mesh(chart: &mut Chart<'_, '_>, x: (&str, Scale, f64), y: Option<(&str, Scale, f64)>) -> Result<()> {
    let across = |place: &f64| x.1.label(*place);
    let up = |place: &f64| y.map(|(_, scale, _)| scale.label(*place)).unwrap_or_default();
    let thin = ShapeStyle { color: GRID.to_rgba(), filled: false, stroke_width: UNIT.unsigned_abs() };
    let mut mesh = chart.configure_mesh();
    mesh.label_style(text(HPos::Left, VPos::Top))
        .axis_desc_style(text(HPos::Left, VPos::Top))
        .axis_style(thin)
        .bold_line_style(thin)
        .light_line_style(TRANSPARENT)
        .set_all_tick_mark_size(5 * UNIT)
        .x_labels(x.1.labels(x.2))
        .y_labels(y.map_or(0, |(_, scale, length)| scale.labels(length)))
        .x_label_formatter(&across)
        .y_label_formatter(&up)
        .x_desc(x.0);
    match y {
        Some((name, ..)) => mesh.y_desc(name),
        None => mesh.disable_y_mesh().disable_y_axis(),
    };
    mesh.draw().map_err(|error| anyhow!("{error}"))
}

fn text<'t>(across: HPos, up: VPos) -> TextStyle<'t> {
    ("sans-serif", FONT).into_font().color(&INK).pos(Pos::new(across, up))
}

fn role(colour: usize) -> RGBColor {
    let colour = u8::try_from(colour % COLOURS).unwrap_or_default();
    RGBColor(0xc0, 0, colour)
}

fn filled(colour: usize) -> ShapeStyle {
    role(colour).filled()
}
