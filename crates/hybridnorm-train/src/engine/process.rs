//! Memory of this process, as Linux tells it.

/// Most memory this process ever held, in bytes, without the pages of its program file: how many of those are in memory is up to the
/// system (20 to 80 MiB of a program of 100 were seen), which can drop them at any time.
pub(crate) fn peak_memory() -> Option<u64> {
    Some(status("VmHWM:")?.saturating_sub(status("RssFile:")?))
}

/// Memory that this process holds now, in bytes.
pub(crate) fn resident_memory() -> Option<u64> {
    status("VmRSS:")
}

fn status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
