//! How much memory this process may still take, as Linux tells it: what the machine has left, or the control
//! groups that the process is in, whichever is less. Unknown elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes, if they can be known.
pub fn bytes() -> Option<usize> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| field(&text, "MemAvailable:")?.checked_mul(1024));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = groups
        .lines()
        .filter_map(|line| group_left(line, Path::new("/sys/fs/cgroup")));
    machine.into_iter().chain(left).min()
}

/// What the group of a line of /proc/self/cgroup, and those it lies in, leave.
fn group_left(line: &str, mount: &Path) -> Option<usize> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let (root, names) = match controllers {
        "" => (mount.to_path_buf(), &UNIFIED),
        list if list.split(',').any(|name| name == "memory") => (mount.join("memory"), &LEGACY),
        _ => return None,
    };
    // Inside a container the path may be that of the host: what is not there is passed over.
    let group: PathBuf = root.join(path.trim_start_matches('/'));
    let within = group
        .ancestors()
        .take_while(|directory| directory.starts_with(&root));
    within
        .filter_map(|directory| directory_left(directory, names))
        .min()
}

/// The files that say a group's limit and use, and the fields of `memory.stat` for pages of files.
struct Names {
    limit: &'static str,
    used: &'static str,
    reclaimable: [&'static str; 2],
}

const UNIFIED: Names = Names {
    limit: "memory.max",
    used: "memory.current",
    reclaimable: ["inactive_file", "active_file"],
};

const LEGACY: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: ["total_inactive_file", "total_active_file"],
};

/// Pages of files count as used, but make room when asked to.
fn directory_left(directory: &Path, names: &Names) -> Option<usize> {
    let number = |name: &str| -> Option<usize> {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        text.trim().parse().ok()
    };
    let (limit, used) = (number(names.limit)?, number(names.used)?);
    let statistics = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let pages = names
        .reclaimable
        .iter()
        .filter_map(|name| field(&statistics, name));
    let kept = used.saturating_sub(pages.sum());
    Some(limit.saturating_sub(kept))
}

/// The number behind a name that opens a line.
fn field(text: &str, name: &str) -> Option<usize> {
    let mut lines = text.lines().map(str::split_whitespace);
    let mut line = lines.find(|line| line.clone().next() == Some(name))?;
    line.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts_and_pages_of_files_do_not() {
        let mount = tempfile::tempdir().unwrap();
        let (outer, inner) = (mount.path().join("outer"), mount.path().join("outer/inner"));
        fs::create_dir_all(&inner).unwrap();
        let write = |directory: &Path, limit: &str, used: &str, stat: &str| {
            fs::write(directory.join("memory.max"), limit).unwrap();
            fs::write(directory.join("memory.current"), used).unwrap();
            fs::write(directory.join("memory.stat"), stat).unwrap();
        };
        write(&inner, "max\n", "500\n", "");
        let stat = "anon 300\ninactive_file 60\nactive_file 40\n";
        write(&outer, "1000\n", "400\n", stat);
        assert_eq!(group_left("0::/outer/inner", mount.path()), Some(700));
        assert_eq!(group_left("0::/outer/gone", mount.path()), Some(700));
        assert_eq!(group_left("4:cpu,cpuacct:/outer", mount.path()), None);
        assert_eq!(group_left("0::/", mount.path()), None);
    }

    #[test]
    fn linux_tells_what_is_left() {
        if cfg!(target_os = "linux") {
            assert!(bytes().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
