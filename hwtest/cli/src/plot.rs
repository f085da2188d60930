//! Line charts as SVG and PNG. Letters need a font of the system's, since a program should not bring its own.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, anyhow, bail};
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::coord::ranged1d::ValueFormatter;
use plotters::drawing::IntoDrawingArea;
use plotters::element::{Circle, PathElement};
use plotters::prelude::{BindKeyPoints, IntoLogRange, Ranged};
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color, FontStyle, RGBColor, WHITE, register_font};

/// A chart. The horizontal axis is logarithmic: sizes and depths double.
pub(crate) struct Chart {
    /// Name of a file without its ending.
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) y_log: bool,
    pub(crate) series: Vec<Series>,
}

/// A line in it.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (900, 520);
/// Colours that also those tell apart who see red and green alike.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];

/// The chart as SVG.
pub(crate) fn svg(chart: &Chart) -> Result<String> {
    let mut text = String::new();
    draw(chart, SVGBackend::with_string(&mut text, SIZE))?;
    Ok(text)
}

/// The chart as a PNG file.
pub(crate) fn png(chart: &Chart, file: &Path) -> Result<()> {
    draw(chart, BitMapBackend::new(file, SIZE))
}

fn draw<B: DrawingBackend>(chart: &Chart, backend: B) -> Result<()> {
    font()?;
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        points().map(of).fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (x, y) = (bounds(|point| point.0), bounds(|point| point.1));
    if points().next().is_none() || !y.1.is_finite() || x.0 <= 0.0 {
        bail!("{}: there is nothing to draw", chart.title);
    }
    let area = backend.into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", chart.title);
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut builder = ChartBuilder::on(&area);
    builder.caption(&chart.title, ("sans-serif", 20)).margin(12).x_label_area_size(42).y_label_area_size(64);
    // A mark at each size or depth that was measured: powers of ten would leave most points between two of them.
    let mut marks: Vec<f64> = points().map(|point| point.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let across = (x.0 * 0.95..x.1 * 1.05).log_scale().with_key_points(marks);
    let drawn = if chart.y_log {
        let up = (y.0.max(1e-3) / 2.0..y.1.max(1e-2) * 2.0).log_scale();
        builder
            .build_cartesian_2d(across, up)
            .map_err(|error| failed(&error))
            .and_then(|canvas| fill(chart, canvas))
    } else {
        let up = 0.0..y.1 * 1.1;
        builder
            .build_cartesian_2d(across, up)
            .map_err(|error| failed(&error))
            .and_then(|canvas| fill(chart, canvas))
    };
    drawn?;
    area.present().map_err(|error| failed(&error))
}

fn fill<'a, B, X, Y>(
    chart: &Chart,
    mut canvas: plotters::chart::ChartContext<'a, B, plotters::coord::cartesian::Cartesian2d<X, Y>>,
) -> Result<()>
where
    B: DrawingBackend + 'a,
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", chart.title);
    canvas
        .configure_mesh()
        .light_line_style(RGBColor(238, 238, 238))
        .x_desc(&chart.x)
        .y_desc(&chart.y)
        .label_style(("sans-serif", 14))
        .x_label_formatter(&|value| format!("{value}"))
        .y_label_formatter(&|value| crate::table::short(*value))
        .draw()
        .map_err(|error| failed(&error))?;
    for (series, colour) in chart.series.iter().zip(COLOURS.iter().cycle()) {
        let colour = *colour;
        let line = LineSeries::new(series.points.iter().copied(), colour.stroke_width(2));
        canvas
            .draw_series(line)
            .map_err(|error| failed(&error))?
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3)));
        let dots = series.points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
        canvas.draw_series(dots).map_err(|error| failed(&error))?;
    }
    canvas
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(|error| failed(&error))
}

/// Fonts that systems have, in the order of preference: file names below the folders of fonts.
const FONTS: [&str; 5] =
    ["DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "FreeSans.ttf", "Arial.ttf"];
const FOLDERS: [&str; 3] = ["/usr/share/fonts", "/usr/local/share/fonts", "/usr/share/texmf/fonts"];

/// Registers a font, once.
fn font() -> Result<()> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
        let Some(file) = FONTS.iter().find_map(|name| search(&folders, name, 5)) else { return false };
        let Ok(octets) = std::fs::read(file) else { return false };
        register_font("sans-serif", FontStyle::Normal, octets.leak()).is_ok()
    });
    if !found {
        bail!(
            "plots need a font, and this system has none that is known here: apt-get install fonts-dejavu-core"
        );
    }
    Ok(())
}

fn search(folders: &[PathBuf], name: &str, depth: usize) -> Option<PathBuf> {
    for folder in folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let (deeper, files): (Vec<PathBuf>, Vec<PathBuf>) =
            entries.map(|entry| entry.path()).partition(|path| path.is_dir());
        if let Some(found) =
            files.into_iter().find(|file| file.file_name().is_some_and(|known| known == name))
        {
            return Some(found);
        }
        if let Some(found) = (depth > 0).then(|| search(&deeper, name, depth - 1)).flatten() {
            return Some(found);
        }
    }
    None
}
