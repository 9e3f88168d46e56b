//! nvcc: where it is, what it can do, and how a file is compiled with it.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The architecture that the kernels are written for: mma.sync, ldmatrix and cp.async of compute capability 8.0.
pub const BASELINE: u32 = 80;

/// The architectures that machine code is made for, where nvcc knows them: A100, RTX 30, RTX 40, H100, B200, RTX 50.
const ARCHITECTURES: [u32; 6] = [BASELINE, 86, 89, 90, 100, 120];

/// The versions of PTX that are tried, as ten times their number, from the oldest that has the baseline's instructions.
const PTX_VERSIONS: std::ops::Range<u32> = 70..90;

/// A compiler that was found, and was not asked yet what it can do.
pub struct Nvcc(PathBuf);

/// A compiler, and what to compile for.
#[derive(Clone)]
pub struct Toolkit {
    nvcc: PathBuf,
    ptxas: PathBuf,
    /// 13.0 as 13_000, as the driver counts.
    pub release: u32,
    architectures: Vec<u32>,
}

/// The files that were made of one source.
pub struct Compiled {
    pub ptx: PathBuf,
    pub cubins: Vec<(u32, PathBuf)>,
}

/// Looks for nvcc in all places where it may be, and takes the first.
pub fn find(out: &Path) -> Result<Nvcc, String> {
    if let Some(named) = env::var_os("NVCC").map(PathBuf::from) {
        if !named.is_file() {
            return Err(format!(
                "NVCC names {}, which is not a file",
                named.display()
            ));
        }
        return Ok(Nvcc(named));
    }
    let name = format!("nvcc{}", env::consts::EXE_SUFFIX);
    let path = env::var_os("PATH").unwrap_or_default();
    let homes = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(env::var_os);
    let wheels = out.ancestors().map(|a| a.join("cuda-toolkit/nvidia/cu13"));
    let homes = homes
        .map(PathBuf::from)
        .chain([PathBuf::from("/usr/local/cuda")])
        .chain(wheels);
    env::split_paths(&path)
        .chain(homes.map(|home| home.join("bin")))
        .map(|folder| folder.join(&name))
        .find(|file| file.is_file())
        .map(Nvcc)
        .ok_or_else(|| {
            "nvcc was not found: this build has no CUDA device. To have one, install the CUDA toolkit, or \
             run scripts/cuda-toolkit; then NVCC=/path/to/nvcc cargo build"
                .into()
        })
}

impl Nvcc {
    /// Asks the compiler what it is.
    pub fn toolkit(&self) -> Result<Toolkit, String> {
        let nvcc = self.0.clone();
        let ptxas = nvcc.with_file_name(format!("ptxas{}", env::consts::EXE_SUFFIX));
        let known = run(Command::new(&nvcc).arg("--list-gpu-code"))?;
        let known: Vec<u32> = known
            .lines()
            .filter_map(|line| line.trim().strip_prefix("sm_")?.parse().ok())
            .collect();
        let version = run(Command::new(&nvcc).arg("--version"))?;
        let release = release(&version)
            .ok_or_else(|| format!("{} --version names no release", nvcc.display()))?;
        let wanted = env::var("SHOWTELL_CUDA_ARCHS").ok();
        let architectures = chosen(wanted.as_deref(), &known)?;
        Ok(Toolkit {
            nvcc,
            ptxas,
            release,
            architectures,
        })
    }
}

/// The number behind `release` in what `nvcc --version` prints.
pub fn release(version: &str) -> Option<u32> {
    let (_, rest) = version.split_once("release ")?;
    let number = rest.split([',', ' ']).next()?;
    let (major, minor) = number.split_once('.')?;
    Some(major.parse::<u32>().ok()? * 1000 + minor.parse::<u32>().ok()? * 10)
}

/// The architectures to make machine code for, of those that the compiler knows. `wanted` is a list, as `80,90`.
pub fn chosen(wanted: Option<&str>, known: &[u32]) -> Result<Vec<u32>, String> {
    let Some(wanted) = wanted else {
        let fixed = ARCHITECTURES.into_iter();
        return Ok(fixed.filter(|arch| known.contains(arch)).collect());
    };
    let separators = |c: char| c == ',' || c == ';' || c.is_whitespace();
    let wanted = wanted.split(separators).filter(|arch| !arch.is_empty());
    let usable = |arch: &str| {
        let number = arch.trim_start_matches("sm_").parse().ok();
        number.filter(|&n| n >= BASELINE && known.contains(&n))
    };
    let refuse = |arch| {
        format!(
            "SHOWTELL_CUDA_ARCHS: {arch} is no architecture that the kernels can be compiled for; this nvcc \
             knows {known:?}, and the kernels need {BASELINE} or newer"
        )
    };
    wanted
        .map(|arch| usable(arch).ok_or_else(|| refuse(arch)))
        .collect()
}

impl Toolkit {
    /// Makes PTX for the baseline, and machine code from it. The PTX says the lowest version that ptxas takes it for, so that
    /// older drivers compile it too. If nothing has changed, the files of the last time are kept.
    pub fn compile(&self, source: &Path, out: &Path) -> Result<Compiled, String> {
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        let ptx = out.join(format!("{stem}.ptx"));
        let architectures = self.architectures.iter();
        let cubins = architectures.map(|&arch| (arch, out.join(format!("{stem}.sm_{arch}.cubin"))));
        let compiled = Compiled {
            cubins: cubins.collect(),
            ptx,
        };
        let stamp = out.join(format!("{stem}.stamp"));
        let state = self.state(source)?;
        if fs::read_to_string(&stamp).is_ok_and(|before| before == state) && compiled.is_there() {
            return Ok(compiled);
        }
        let mut to_ptx = Command::new(&self.nvcc);
        to_ptx
            .args(["-ptx", "-std=c++17", "-O3", "-lineinfo"])
            .arg(format!("-arch=compute_{BASELINE}"))
            .arg(source)
            .arg("-o")
            .arg(&compiled.ptx);
        run(&mut to_ptx)?;
        self.lower(source, &compiled)?;
        fs::write(&stamp, state).map_err(|e| format!("{}: {e}", stamp.display()))?;
        Ok(compiled)
    }

    /// Makes machine code of the PTX, which gets the lowest version in its head with which that works.
    fn lower(&self, source: &Path, compiled: &Compiled) -> Result<(), String> {
        let ptx = &compiled.ptx;
        let refuse = |e| format!("{}: {e}", ptx.display());
        let text = fs::read_to_string(ptx).map_err(refuse)?;
        let written = ptx_version(&text).ok_or_else(|| refuse(no_version()))?;
        for version in PTX_VERSIONS.filter(|&version| version < written) {
            fs::write(ptx, with_ptx_version(&text, version)).map_err(refuse)?;
            match self.assemble(source, compiled) {
                Err(told) if told.contains("PTX ISA .version") => {}
                done => return done,
            }
        }
        fs::write(ptx, &text).map_err(refuse)?;
        self.assemble(source, compiled)
    }

    /// Makes machine code of the PTX for each architecture; for the baseline, to see whether it is right, if there is none.
    fn assemble(&self, source: &Path, compiled: &Compiled) -> Result<(), String> {
        let trial = [(BASELINE, compiled.ptx.with_extension("trial.cubin"))];
        let cubins = match &compiled.cubins[..] {
            [] => &trial,
            cubins => cubins,
        };
        for (arch, cubin) in cubins {
            let mut to_code = Command::new(&self.ptxas);
            to_code
                .args(["-v", "-O3", "-lineinfo"])
                .arg(format!("-arch=sm_{arch}"))
                .arg(&compiled.ptx)
                .arg("-o")
                .arg(cubin);
            refuse_spills(source, *arch, &run(&mut to_code)?)?;
        }
        Ok(())
    }

    /// Everything that the result depends on, as a line of text.
    pub fn state(&self, source: &Path) -> Result<String, String> {
        let mut hasher = DefaultHasher::new();
        (&self.nvcc, self.release, &self.architectures).hash(&mut hasher);
        include_str!("nvcc.rs").hash(&mut hasher);
        let files = super::source::headers(source)?;
        for file in std::iter::once(source.to_path_buf()).chain(files) {
            let text = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            (file, text).hash(&mut hasher);
        }
        Ok(format!("{:016x}\n", hasher.finish()))
    }
}

impl Compiled {
    /// The CUDA release of the oldest driver that compiles the PTX, 11.4 as 11_040.
    pub fn oldest_driver(&self) -> Result<u32, String> {
        let refuse = |e| format!("{}: {e}", self.ptx.display());
        let text = fs::read_to_string(&self.ptx).map_err(refuse)?;
        let version = ptx_version(&text).ok_or_else(|| refuse(no_version()))?;
        Ok(driver_of_ptx(version))
    }

    fn is_there(&self) -> bool {
        self.ptx.is_file() && self.cubins.iter().all(|(_, cubin)| cubin.is_file())
    }
}

fn no_version() -> std::io::Error {
    std::io::Error::other("the PTX has no .version")
}

/// Ten times the version of PTX that a text is written in.
pub fn ptx_version(text: &str) -> Option<u32> {
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix(".version "))?;
    let (major, minor) = number.trim().split_once('.')?;
    Some(major.parse::<u32>().ok()? * 10 + minor.parse::<u32>().ok()?)
}

/// The text with another version in its head.
pub fn with_ptx_version(text: &str, version: u32) -> String {
    let lines = text
        .split_inclusive('\n')
        .map(|line| match line.strip_prefix(".version ") {
            Some(_) => format!(".version {}.{}\n", version / 10, version % 10),
            None => line.into(),
        });
    lines.collect()
}

/// The CUDA release of the first driver that reads a version of PTX (the PTX ISA's release notes), as the driver counts.
pub fn driver_of_ptx(version: u32) -> u32 {
    match version {
        ..80 => 11_000 + (version - 70) * 10,
        80..=85 => 12_000 + (version - 80) * 10,
        86..90 => 12_000 + (version - 79) * 10,
        _ => (version / 10 + 4) * 1000 + version % 10 * 10,
    }
}

/// Refuses kernels that spill: when there are not enough registers, values are kept in memory, which is too slow to ship. `told` is
/// the output of `ptxas -v`, in which a line with the kernel's name comes before the line with its spills.
pub fn refuse_spills(source: &Path, arch: u32, told: &str) -> Result<(), String> {
    let mut kernel = "";
    for line in told.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().unwrap_or(rest);
        }
        if line.contains("bytes spill stores")
            && !line.contains(" 0 bytes spill stores, 0 bytes spill loads")
        {
            let spills = line.trim();
            let source = source.display();
            return Err(format!(
                "{source}: {kernel} spills registers on sm_{arch}: {spills}"
            ));
        }
    }
    Ok(())
}

/// What the command printed, or its complaint.
fn run(command: &mut Command) -> Result<String, String> {
    let name = PathBuf::from(command.get_program()).display().to_string();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = text(&output.stdout) + &text(&output.stderr);
    if output.status.success() {
        Ok(told)
    } else {
        Err(format!("{name} failed ({}):\n{told}", output.status))
    }
}
