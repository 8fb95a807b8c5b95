//! The picture: what a message costs in four scenarios and what an idle connection holds, one panel
//! each, the servers as rows.
//!
//! Length from zero carries the figure, and the figure and its ratio to the floor stand beside it;
//! the reference stack is so far out that it gets an arrow, or nothing else could be told apart.
//! Colour only repeats what shape and label say (floor: a diamond, revolve: a large dot), in two
//! colours that every kind of colour-blindness tells apart. It reads a finished `Report`; `main.rs`
//! calls it.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Result;
use crate::report::{Report, number};
use crate::servers::{Kind, NAMES};

const MESSAGE: &str = "CPU µs a message";
/// The title in the report, its unit, and the two lines above the panel.
const PANELS: &[(&str, &str, &str, &str)] = &[
    ("ping-pong, 64 connections, 16 B", MESSAGE, "ping-pong, 64", "CPU µs a message"),
    ("ping-pong, 1,000 connections, 16 B", MESSAGE, "ping-pong, 1,000", "CPU µs a message"),
    ("pipelined, 64 connections × 16 messages", MESSAGE, "64 × 16 deep", "CPU µs a message"),
    ("pipelined, 64 connections × 64 messages", MESSAGE, "64 × 64 deep", "CPU µs a message"),
    ("idle connection, resident", "bytes", "idle connection", "bytes"),
];

const WIDTH: u32 = 1280;
const ROW: i32 = 34;
const TOP: i32 = 92;
const LEFT: i32 = 150;
const PANEL: i32 = 224;
/// Room in a panel's right part for the label of its longest line.
const LABEL: i32 = 96;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);
/// Okabe and Ito's blue and orange.
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const ORANGE: RGBColor = RGBColor(0xd5, 0x5e, 0x00);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(crate) fn draw(report: &Report, path: &Path) -> Result<()> {
    let rows = report.servers.len() as i32;
    let height = TOP + rows * ROW + 66;
    let area = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
    // Its own ground: a page in the dark would swallow the ink.
    area.fill(&WHITE)?;
    let title = "What a message and an idle connection cost, by server";
    text(&area, title, (16, 14), 19, INK, HPos::Left)?;
    let note = "less is better · dashed: the floor, an epoll loop that does no WebSocket work · \
                an arrow goes beyond the scale";
    text(&area, note, (16, 38), 13, GREY, HPos::Left)?;
    for (row, server) in report.servers.iter().enumerate() {
        let y = TOP + row as i32 * ROW + ROW / 2;
        text(&area, server, (LEFT - 12, y - 7), 14, colour(server), HPos::Right)?;
    }
    for (n, panel) in PANELS.iter().enumerate() {
        draw_panel(&area, report, LEFT + n as i32 * PANEL, *panel)?;
    }
    text(&area, &report.caption(), (16, height - 22), 12, GREY, HPos::Left)?;
    area.present()?;
    Ok(())
}

fn draw_panel(
    area: &Area<'_>,
    report: &Report,
    left: i32,
    (title, unit, above, below): (&str, &str, &str, &str),
) -> Result<()> {
    let figures: Vec<(&String, Option<f64>)> = report
        .servers
        .iter()
        .map(|server| (server, report.figure(title, unit, server).filter(|&value| value > 0.0)))
        .collect();
    text(area, above, (left, TOP - 34), 14, INK, HPos::Left)?;
    text(area, below, (left, TOP - 17), 12, GREY, HPos::Left)?;
    let on_scale = |server: &str| kind(server) != Some(Kind::Reference);
    let values = figures.iter().filter(|(server, _)| on_scale(server));
    let most = values.filter_map(|(_, value)| *value).fold(0.0, f64::max);
    if most == 0.0 {
        return text(area, "no figures", (left, TOP + 10), 12, GREY, HPos::Left);
    }
    let width = f64::from(PANEL - LABEL - 12);
    let x = |value: f64| left + (value.min(most) / most * width).round() as i32;
    let bottom = TOP + figures.len() as i32 * ROW;
    let step = step(most);
    for n in 0..=(most / step) as i32 {
        let value = f64::from(n) * step;
        line(area, (x(value), TOP), (x(value), bottom), FAINT)?;
        text(area, &tick(value), (x(value), bottom + 5), 11, GREY, HPos::Center)?;
    }
    let floor = figures.iter().find(|(server, _)| kind(server) == Some(Kind::Floor));
    if let Some((_, Some(floor))) = floor {
        for y in (TOP..bottom).step_by(6) {
            line(area, (x(*floor), y), (x(*floor), (y + 3).min(bottom)), ORANGE)?;
        }
    }
    for (row, (server, value)) in figures.iter().enumerate() {
        let y = TOP + row as i32 * ROW + ROW / 2;
        let Some(value) = value else {
            text(area, "no figure", (left + 4, y - 7), 12, GREY, HPos::Left)?;
            continue;
        };
        let (at, ink) = (x(*value), colour(server));
        let filled = ShapeStyle::from(ink).filled();
        area.draw(&PathElement::new([(left, y), (at, y)], ShapeStyle::from(ink).stroke_width(2)))?;
        let shape = match kind(server) {
            Some(Kind::Floor) => vec![(at - 7, y), (at, y - 7), (at + 7, y), (at, y + 7)],
            Some(Kind::Reference) => vec![(at, y - 6), (at + 9, y), (at, y + 6)],
            _ => Vec::new(),
        };
        if shape.is_empty() {
            let size = if kind(server) == Some(Kind::Revolve) { 6 } else { 4 };
            area.draw(&Circle::new((at, y), size, filled))?;
        } else {
            area.draw(&Polygon::new(shape, filled))?;
        }
        let ratio = report.ratio_of(title, unit, server);
        let ratio = ratio.filter(|_| kind(server) != Some(Kind::Floor));
        let ratio = ratio.map(|ratio| format!(" · {}×", number(ratio))).unwrap_or_default();
        let label = format!("{}{ratio}", number(*value));
        text(area, &label, (at + 13, y - 7), 12, ink, HPos::Left)?;
    }
    Ok(())
}

/// A round distance between ticks: two to five of them.
fn step(most: f64) -> f64 {
    let decade = 10f64.powf(most.log10().floor());
    match most / decade {
        ..2.0 => decade / 2.0,
        2.0..5.0 => decade,
        _ => decade * 2.0,
    }
}

fn kind(server: &str) -> Option<Kind> {
    NAMES.iter().find(|(name, _)| *name == server).map(|(_, kind)| *kind)
}

fn colour(server: &str) -> RGBColor {
    match kind(server) {
        Some(Kind::Floor) => ORANGE,
        Some(Kind::Revolve) => BLUE,
        _ => INK,
    }
}

/// As short as it can be; a sum of steps may have a tail of nines.
fn tick(value: f64) -> String {
    if value >= 1000.0 {
        return format!("{}k", value / 1000.0);
    }
    format!("{}", (value * 1e6).round() / 1e6)
}

fn text(
    area: &Area<'_>,
    words: &str,
    at: (i32, i32),
    size: i32,
    ink: RGBColor,
    side: HPos,
) -> Result<()> {
    let style = TextStyle::from(("sans-serif", size).into_font())
        .color(&ink)
        .pos(Pos::new(side, VPos::Top));
    Ok(area.draw(&Text::new(words, at, style))?)
}

fn line(area: &Area<'_>, from: (i32, i32), to: (i32, i32), ink: RGBColor) -> Result<()> {
    Ok(area.draw(&PathElement::new([from, to], ShapeStyle::from(ink)))?)
}
