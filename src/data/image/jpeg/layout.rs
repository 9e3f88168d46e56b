//! How a JPEG file is laid out: its markers, read before anything is decoded (ITU-T T.81, annex B).

use crate::words;

/// How the coefficients are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Each component in one scan (SOF0, SOF1).
    Sequential,
    /// Each component in several scans (SOF2).
    Progressive,
}

/// What the components mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Gray,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    id: u8,
    /// Horizontal and vertical sampling factor.
    pub sampling: (u8, u8),
}

/// A scan: the components in it, as indices, and whether it begins at the mean (DC) of the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    components: Vec<usize>,
    has_dc: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub coding: Coding,
    pub colour: Colour,
    /// Whether anything in the file says that the components are red, green and blue.
    pub says_rgb: bool,
    pub width: u16,
    pub height: u16,
    pub components: Vec<Component>,
    pub scans: Vec<Scan>,
    /// Whether there is an end-of-image marker.
    pub has_end: bool,
    /// Bytes from the first scan on.
    data: usize,
}

/// More scans than any program writes; a file with many costs much time.
const MAX_SCANS: usize = 100;

/// What is said of a file that was cut short.
pub const TRUNCATED: &str = "this JPEG is truncated: it has no end-of-image marker";

impl Layout {
    /// Reads the markers.
    ///
    /// # Errors
    /// When the file is cut short or damaged, or has a kind of coding that no decoder here reads.
    pub fn read(bytes: &[u8]) -> Result<Layout, String> {
        let mut reader = Reader::new(bytes);
        while let Some(marker) = reader.next_marker() {
            match marker {
                END => {
                    reader.has_end = true;
                    break;
                }
                // TEM, restart markers and the start of the image have no length.
                0x01 | 0xD0..=0xD8 => {}
                _ => {
                    let Some(segment) = reader.segment() else {
                        break;
                    };
                    reader.interpret(marker, segment)?;
                }
            }
        }
        reader.finish()
    }

    /// # Errors
    /// When the layout is against the standard, or the file is too short for its pixels.
    pub fn check(&self) -> Result<(), String> {
        let mut bits = 0;
        for component in &self.components {
            let (h, v) = component.sampling;
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
                return Err(self.refusal("is against the standard"));
            }
            bits += self.blocks(component);
        }
        let sampled = |scan: &Scan| {
            let factors = scan.components.iter().map(|&i| self.components[i].sampling);
            factors
                .map(|(h, v)| u32::from(h) * u32::from(v))
                .sum::<u32>()
        };
        let too_many = |scan: &&Scan| scan.components.len() > 1 && sampled(scan) > 10;
        if self.scans.iter().any(|scan| too_many(&scan)) {
            return Err(
                self.refusal("has more than ten blocks in a unit, which the standard forbids")
            );
        }
        for (i, component) in self.components.iter().enumerate() {
            let scans = self.scans.iter().filter(|scan| scan.has_dc);
            let scans = scans.filter(|scan| scan.components.contains(&i)).count();
            let id = component.id;
            match (self.coding, scans) {
                (_, 0) if !self.has_end => return Err(TRUNCATED.into()),
                (_, 0) => return Err(self.refusal(&format!("has no scan for component {id}"))),
                (Coding::Sequential, 2..) => {
                    return Err(self.refusal(&format!("has component {id} in several scans")));
                }
                _ => {}
            }
        }
        // A block takes a bit at least. This keeps a small file from claiming a huge image.
        if bits > 8 * self.data as u64 {
            let (width, height, data) = (self.width, self.height, self.data);
            return Err(format!(
                "this JPEG is truncated: {data} bytes of data are too few for {width} x {height} pixels"
            ));
        }
        Ok(())
    }

    /// Blocks of 8 x 8 samples of a component.
    fn blocks(&self, component: &Component) -> u64 {
        let most =
            |of: fn(&Component) -> u8| self.components.iter().map(of).max().unwrap_or(1).max(1);
        let count = |pixels: u16, factor: u8, most: u8| {
            (u64::from(pixels) * u64::from(factor)).div_ceil(8 * u64::from(most))
        };
        let (h, v) = component.sampling;
        count(self.width, h, most(|c| c.sampling.0)) * count(self.height, v, most(|c| c.sampling.1))
    }

    /// A message that says what the layout is and what can be done.
    pub fn refusal(&self, why: &str) -> String {
        let factors = self.components.iter().map(|c| c.sampling);
        let factors: Vec<String> = factors.map(|(h, v)| format!("{h}x{v}")).collect();
        let coding = match self.coding {
            Coding::Sequential => "sequential",
            Coding::Progressive => "progressive",
        };
        format!(
            "this JPEG has a layout that {why} ({coding}, sampling {}, {}); {CONVERT}",
            factors.join(" "),
            words::count(self.scans.len(), "scan")
        )
    }
}

const END: u8 = 0xD9;

/// The end of a message about a JPEG that is not read.
const CONVERT: &str =
    "open it in an image program and save it again, for example with: magick photo.jpg photo.png";

struct Frame {
    coding: Coding,
    width: u16,
    height: u16,
    components: Vec<Component>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// What has not been read.
    rest: &'a [u8],
    frame: Option<Frame>,
    scans: Vec<Scan>,
    has_jfif: bool,
    /// The colour transform in the Adobe segment.
    adobe: Option<u8>,
    data: Option<usize>,
    has_end: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Reader {
            bytes,
            rest: bytes,
            frame: None,
            scans: Vec::new(),
            has_jfif: false,
            adobe: None,
            data: None,
            has_end: false,
        }
    }

    /// Skips to the next marker. In coded data an 0xFF is followed by 0; before a marker there may be several.
    fn next_marker(&mut self) -> Option<u8> {
        loop {
            let start = self.rest.iter().position(|&byte| byte == 0xFF)?;
            self.rest = &self.rest[start + 1..];
            match self.rest.first()? {
                0xFF => {}
                0x00 => self.rest = &self.rest[1..],
                &marker => {
                    self.rest = &self.rest[1..];
                    return Some(marker);
                }
            }
        }
    }

    /// The content of a segment, without its length.
    fn segment(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes(*self.rest.first_chunk()?));
        let segment = self.rest.get(2..length)?;
        self.rest = &self.rest[length..];
        Some(segment)
    }

    fn interpret(&mut self, marker: u8, segment: &[u8]) -> Result<(), String> {
        match marker {
            0xC0..=0xC2 => self.frame(marker, segment)?,
            0xC3 => return Err(kind("without loss")),
            0xC5..=0xC7 => return Err(kind("in a hierarchy of sizes")),
            0xC9..=0xCB | 0xCD..=0xCF => return Err(kind("with arithmetic coding")),
            0xDA => self.scan(segment)?,
            0xE0 if segment.starts_with(b"JFIF\0") => self.has_jfif = true,
            0xEE if segment.starts_with(b"Adobe") => self.adobe = segment.get(11).copied(),
            _ => {}
        }
        Ok(())
    }

    fn frame(&mut self, marker: u8, segment: &[u8]) -> Result<(), String> {
        let damaged = || "this JPEG is damaged: its frame header is not complete".to_string();
        let (&[precision, h0, h1, w0, w1, count], listed) =
            segment.split_first_chunk().ok_or_else(damaged)?;
        if self.frame.is_some() {
            return Err(format!("this JPEG holds two frames; {CONVERT}"));
        }
        if precision != 8 {
            return Err(format!(
                "this JPEG has {precision} bits per sample, and only 8 are read; {CONVERT}"
            ));
        }
        if ![1, 3, 4].contains(&count) {
            return Err(format!(
                "this JPEG has {count} components, and only 1, 3 or 4 are read; {CONVERT}"
            ));
        }
        let listed = listed.chunks_exact(3).map(|c| Component {
            id: c[0],
            sampling: (c[1] >> 4, c[1] & 15),
        });
        let components: Vec<Component> = listed.take(count.into()).collect();
        if components.len() < count.into() {
            return Err(damaged());
        }
        self.frame = Some(Frame {
            coding: if marker == 0xC2 {
                Coding::Progressive
            } else {
                Coding::Sequential
            },
            width: u16::from_be_bytes([w0, w1]),
            height: u16::from_be_bytes([h0, h1]),
            components,
        });
        Ok(())
    }

    fn scan(&mut self, segment: &[u8]) -> Result<(), String> {
        let damaged = || "this JPEG is damaged: the header of a scan is wrong".to_string();
        let frame = self.frame.as_ref().ok_or_else(damaged)?;
        let (&count, listed) = segment.split_first().ok_or_else(damaged)?;
        let ids: Vec<u8> = listed
            .chunks_exact(2)
            .map(|c| c[0])
            .take(count.into())
            .collect();
        let start = *listed.get(2 * usize::from(count)).ok_or_else(damaged)?;
        let index = |id: u8| frame.components.iter().position(|c| c.id == id);
        let components: Option<Vec<usize>> = ids.into_iter().map(index).collect();
        let components = components.ok_or_else(damaged)?;
        // The standard wants them in the order of the frame.
        if components.is_empty() || !components.is_sorted_by(|a, b| a < b) {
            return Err(damaged());
        }
        if self.scans.len() == MAX_SCANS {
            return Err(format!(
                "this JPEG has more than {MAX_SCANS} scans; {CONVERT}"
            ));
        }
        self.scans.push(Scan {
            components,
            has_dc: start == 0,
        });
        self.data.get_or_insert(self.rest.len());
        Ok(())
    }

    fn finish(self) -> Result<Layout, String> {
        let Some(frame) = self.frame else {
            return Err(if self.has_end {
                "this JPEG is damaged: it has no frame header".into()
            } else {
                TRUNCATED.into()
            });
        };
        // Zero bytes in the place of the end are a case of their own.
        if !self.has_end && !self.bytes.ends_with(&[0]) {
            return Err(TRUNCATED.into());
        }
        let ids: Vec<u8> = frame.components.iter().map(|c| c.id).collect();
        let colour = colour(&ids, self.has_jfif, self.adobe);
        let says_rgb = self.adobe == Some(0) || ids == b"RGB";
        Ok(Layout {
            coding: frame.coding,
            colour,
            says_rgb,
            width: frame.width,
            height: frame.height,
            components: frame.components,
            scans: self.scans,
            has_end: self.has_end,
            data: self.data.unwrap_or(0),
        })
    }
}

/// What libjpeg takes the components for.
fn colour(ids: &[u8], has_jfif: bool, adobe: Option<u8>) -> Colour {
    match (ids, adobe) {
        ([_], _) => Colour::Gray,
        ([_, _, _, _], None | Some(0)) => Colour::Cmyk,
        ([_, _, _, _], _) => Colour::Ycck,
        _ if has_jfif => Colour::YCbCr,
        (_, Some(0)) => Colour::Rgb,
        (_, Some(_)) => Colour::YCbCr,
        (b"RGB", None) => Colour::Rgb,
        _ => Colour::YCbCr,
    }
}

fn kind(how: &str) -> String {
    format!("this JPEG is compressed {how}, which is not read; {CONVERT}")
}
