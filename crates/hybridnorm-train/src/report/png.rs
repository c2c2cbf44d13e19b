//! Pictures as pixels, by `resvg`.

use super::ReportError;

/// Pixels of a PNG for each of the picture's.
const SCALE: f32 = 2.0;

/// The fonts of the system, with one of them as `sans-serif`.
pub(super) struct Fonts(resvg::usvg::Options<'static>);

impl Fonts {
    pub(super) fn of_the_system() -> Result<Self, ReportError> {
        let mut options = resvg::usvg::Options::default();
        let fonts = options.fontdb_mut();
        fonts.load_system_fonts();
        let sans = resvg::usvg::fontdb::Query {
            families: &[resvg::usvg::fontdb::Family::SansSerif],
            ..Default::default()
        };
        if fonts.query(&sans).is_none() {
            // Where the system does not say which: one that is made for it by name, or else any.
            let named = |face: &&resvg::usvg::fontdb::FaceInfo| {
                face.families.iter().any(|(name, _)| name.contains("Sans"))
            };
            let face = fonts.faces().find(named).or_else(|| fonts.faces().next());
            let family = face.and_then(|face| face.families.first());
            let (family, _) = family.ok_or(ReportError::NoFont)?.clone();
            fonts.set_sans_serif_family(family);
        }
        Ok(Self(options))
    }

    pub(super) fn png(&self, svg: &str) -> Result<Vec<u8>, String> {
        let tree = resvg::usvg::Tree::from_str(svg, &self.0).map_err(|error| error.to_string())?;
        let size = tree
            .size()
            .to_int_size()
            .scale_by(SCALE)
            .ok_or("it has no size")?;
        let pixels = resvg::tiny_skia::Pixmap::new(size.width(), size.height());
        let mut pixels = pixels.ok_or("it has no size")?;
        let scale = resvg::tiny_skia::Transform::from_scale(SCALE, SCALE);
        resvg::render(&tree, scale, &mut pixels.as_mut());
        pixels.encode_png().map_err(|error| error.to_string())
    }
}
