//! The shared libraries a program needs and a bare machine may lack.

use std::path::PathBuf;

/// What glibc and the GPU's driver bring: a copy from another machine would not match them.
const STAYS: [&str; 9] = [
    "ld-linux",
    "libc.so",
    "libm.so",
    "libdl.so",
    "libpthread.so",
    "librt.so",
    "libresolv.so",
    "libcuda",
    "libnvidia",
];

/// The paths in the output of `ldd` that travel with the program.
pub fn to_carry(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| {
            let (name, path) = line.trim().split_once(" => ")?;
            let path = path.split(" (").next()?;
            let stays = STAYS.iter().any(|prefix| name.starts_with(prefix));
            (path.starts_with('/') && !stays).then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_brings_stays() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz3.so.4 => /lib/x86_64-linux-gnu/libz3.so.4 (0x1)\n\
                   \tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x1)\n\tlibcuda.so.1 => not found\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x1)\n\t/lib64/ld-linux-x86-64.so.2 (0x1)\n";
        assert_eq!(
            to_carry(ldd),
            [PathBuf::from("/lib/x86_64-linux-gnu/libz3.so.4")]
        );
        assert!(to_carry("\tstatically linked\n").is_empty());
    }
}
