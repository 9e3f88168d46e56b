//! Signals that ask the program to end: Ctrl-C, the end of a batch job or a container, a terminal that closes.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(unix)]
const SIGNALS: &[i32] = &[SIGINT, SIGTERM, signal_hook::consts::SIGHUP];
#[cfg(not(unix))]
const SIGNALS: &[i32] = &[SIGINT, SIGTERM];

/// Which signal has come, if any.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// From now on the first signal is only noted, and Ctrl-C after it ends the process at once. Other signals do not: batch
    /// systems and closing terminals send theirs more than once. A signal that the process was started to ignore, as by
    /// `nohup`, stays ignored.
    ///
    /// # Errors
    /// When the operating system refuses the handler of a signal.
    pub fn listen(&self) -> io::Result<()> {
        let noted = Arc::new(AtomicBool::new(false));
        for &signal in SIGNALS.iter().filter(|&&signal| !is_ignored(signal)) {
            // In this order: the first signal passes the shutdown, and then arms it.
            if signal == SIGINT {
                flag::register_conditional_shutdown(signal, status(signal).into(), noted.clone())?;
            }
            flag::register(signal, noted.clone())?;
            flag::register_usize(signal, self.0.clone(), signal as usize)?;
        }
        Ok(())
    }

    /// The signal that has come.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }
}

/// The exit status that shells give to a command which a signal ended.
pub fn status(signal: i32) -> u8 {
    128 + signal as u8
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, `sigaction` only writes the present one.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: a call that succeeded has written it.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cfg(not(unix))]
fn is_ignored(_signal: i32) -> bool {
    false
}
