//! How this process keeps its memory.

/// Tells glibc to keep what is freed, in one place for all threads. A training step frees and allocates the same few hundred megabytes:
/// given back, their pages are cleared anew each time; kept by each thread for itself, they are kept several times over, for a step runs on
/// whichever thread of the pool comes first. Other allocators are left as they are.
///
/// To be called before threads begin.
pub(crate) fn keep_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // The largest that glibc takes.
        const LARGEST_IN_HEAP: libc::c_int = 32 << 20;
        let settings = [
            (libc::M_ARENA_MAX, 1),
            (libc::M_TRIM_THRESHOLD, libc::c_int::MAX),
            (libc::M_MMAP_THRESHOLD, LARGEST_IN_HEAP),
        ];
        for (parameter, value) in settings {
            // SAFETY: sets a parameter of the allocator, which glibc allows at any time; what it refuses stays as it was.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}
