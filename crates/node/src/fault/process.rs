//! Ends or stops this process.

use std::time::Duration;

/// How often the helper looks whether the stopped process is still there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// As `kill -9` would, but also where this is process 1 of a container, which that signal does not reach
/// from inside.
pub(super) fn abort() {
    // Why: a rehearsed crash needs no core file, and mail has no business in one.
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit(2) reads one struct that lives across the call.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    std::process::abort();
}

/// As a supervisor does: leaderships are handed over, and the process ends.
pub(super) fn terminate() {
    // SAFETY: kill(2) takes two numbers; the process is this one.
    unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
}

/// Stops this process for a time, `after` a while in which it can still answer. A helper process made before
/// lets it go on.
pub(super) fn pause(duration: Duration, after: Duration) -> Result<(), String> {
    // SAFETY: getpid(2) takes nothing.
    let me = unsafe { libc::getpid() };
    if me == 1 {
        return Err("process 1 of a container cannot be stopped: run the node under an init, or \
                    share the pod's process namespace"
            .into());
    }
    let n_looks = ((after + duration).as_millis() / LOOK_EVERY.as_millis()).max(1) as u64;
    // SAFETY: between fork and _exit the child calls only what may be called there (signal-safety(7)).
    let helper = unsafe { libc::fork() };
    match helper {
        -1 => Err(format!("fork: {}", std::io::Error::last_os_error())),
        0 => wake(me, n_looks),
        helper => {
            std::thread::spawn(move || {
                std::thread::sleep(after);
                // SAFETY: kill(2) takes numbers; the helper is our child until waitpid(2) took it.
                unsafe {
                    libc::kill(me, libc::SIGSTOP);
                    libc::waitpid(helper, std::ptr::null_mut(), 0);
                }
            });
            Ok(())
        }
    }
}

/// The helper: waits, lets its parent go on, and ends; at once if the parent died.
fn wake(parent: i32, n_looks: u64) -> ! {
    let look = libc::timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.as_nanos() as i64 };
    // SAFETY: only system calls with numbers, and nanosleep(2) with a struct that lives across it.
    unsafe {
        // Why: a port or lock this helper held would keep a dead node from coming back.
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        for _ in 0..n_looks {
            libc::nanosleep(&look, std::ptr::null_mut());
            if libc::getppid() != parent {
                libc::_exit(0);
            }
        }
        libc::kill(parent, libc::SIGCONT);
        libc::_exit(0)
    }
}
