//! Where the running kernel keeps what the observer reads: offsets in bytes, from the kernel's type information.
//!
//! Invariant: what the kernel does not have is [`ABSENT`], and is read as nothing.

/// A member that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! layout {
    ($($(#[$doc:meta])* $field:ident: $structure:literal, $path:literal, $need:ident;)*) => {
        /// Offsets of members. A global variable of the object, constant to the verifier.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct Layout {
            $($(#[$doc])* pub $field: u32,)*
        }

        impl Layout {
            /// Nothing known.
            pub const ABSENT: Self = Self { $($field: ABSENT,)* };

            /// Fills in every offset by asking for (structure, path of members).
            ///
            /// # Errors
            /// The name of a member that must be there and is not.
            pub fn fill(mut ask: impl FnMut(&str, &str) -> Option<u32>) -> Result<Self, &'static str> {
                Ok(Self {
                    $($field: layout!(@ $need ask, $structure, $path),)*
                })
            }
        }
    };
    (@ must $ask:ident, $structure:literal, $path:literal) => {
        $ask($structure, $path).ok_or(concat!($structure, ".", $path))?
    };
    (@ may $ask:ident, $structure:literal, $path:literal) => {
        $ask($structure, $path).unwrap_or(ABSENT)
    };
}

layout! {
    /// Namespaces of a task.
    nsproxy: "task_struct", "nsproxy", must;
    /// Its mount namespace.
    mnt_ns: "nsproxy", "mnt_ns", must;
    /// Inode number of that.
    mnt_inum: "mnt_namespace", "ns.inum", must;
    /// File of what is executed.
    file: "linux_binprm", "file", must;
    /// Path of it, as called.
    filename: "linux_binprm", "filename", must;
    /// Inode of a file.
    f_inode: "file", "f_inode", must;
    /// Its number.
    i_ino: "inode", "i_ino", must;
    /// Its file system.
    i_sb: "inode", "i_sb", must;
    /// Device of that.
    s_dev: "super_block", "s_dev", must;
    /// Its number, in the machine's own namespace.
    pid: "task_struct", "pid", must;
    /// Parent of a task.
    real_parent: "task_struct", "real_parent", must;
    /// First thread of a task's process.
    group_leader: "task_struct", "group_leader", must;
    /// When a task was made, boot time.
    start_boottime: "task_struct", "start_boottime", must;
    /// Wait status.
    exit_code: "task_struct", "exit_code", must;
    /// Login uid (CONFIG_AUDIT).
    loginuid: "task_struct", "loginuid.val", may;
    /// Session of the audit system (CONFIG_AUDIT).
    sessionid: "task_struct", "sessionid", may;
    /// What the threads of a process share.
    signal: "task_struct", "signal", must;
    /// Controlling terminal.
    tty: "signal_struct", "tty", may;
    /// Pages that children faulted in, counted when they are waited for.
    cmin_flt: "signal_struct", "cmin_flt", may;
    /// Name of a terminal.
    tty_name: "tty_struct", "name", may;
    /// Memory of a task.
    mm: "task_struct", "mm", must;
    /// First byte of the arguments.
    arg_start: "mm_struct", "arg_start", must;
    /// One past the last.
    arg_end: "mm_struct", "arg_end", must;
    /// Pids of a task.
    thread_pid: "task_struct", "thread_pid", must;
    /// Depth of the innermost pid namespace.
    level: "pid", "level", must;
    /// Pids by depth.
    numbers: "pid", "numbers", must;
    /// Pid in one of them.
    nr: "upid", "nr", must;
    /// Rights of a task.
    cred: "task_struct", "cred", must;
    /// Real uid.
    uid: "cred", "uid.val", must;
    /// Effective uid.
    euid: "cred", "euid.val", must;
    /// Command name.
    comm: "task_struct", "comm", must;
    /// Nanoseconds on a processor.
    ran: "task_struct", "se.sum_exec_runtime", may;
    /// Nanoseconds of waiting for one (CONFIG_SCHED_INFO).
    waited: "task_struct", "sched_info.run_delay", may;
    /// Size of a upid.
    upid_bytes: "upid", "", must;
}
