//! Boots one kernel, twice: process of the sandbox. virtiofsd shows the sandbox's root to the guest, and a folder that
//! both boots write; what the guest says comes out at its end.

use super::initramfs::Archive;
use super::kernels::{IMAGE, LOADED};
use super::{GUEST_VERB, QEMU, guest};
use crate::error::{Error, Result};
use crate::run;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Below the sandbox's own /run.
const WORK: &str = "/run/portcullis-vm";
/// The emulated machine needs 10 to 60 s for a boot and all of its checks; a busy host much more.
const PATIENCE: Duration = Duration::from_secs(420);
/// Debian's, with bpf, which Debian's kernels have in the list by themselves and Ubuntu's do not.
const LSMS: &str = "lsm=landlock,lockdown,yama,apparmor,bpf";
const MEMORY: &str = "1024M";
/// The rust one of Debian 13.
const NEW_VIRTIOFSD: &str = "/usr/libexec";

/// The hidden verb.
#[derive(Debug, clap::Args)]
pub struct Boot {
    /// Folder with the kernel's image and modules
    #[arg(long)]
    kernel: PathBuf,
    /// The program that shows the root to the guest
    #[arg(long)]
    virtiofsd: PathBuf,
}

/// Does all of it and prints what the guest said. The status is 1 when it had to be stopped.
///
/// # Errors
/// A program that is needed cannot be started, or a file not be used.
pub fn boot(options: &Boot) -> Result<u8> {
    let disk = Path::new(WORK).join("disk");
    std::fs::create_dir_all(&disk).map_err(Error::file("create", &disk))?;
    let initrd = Path::new(WORK).join("initrd");
    std::fs::write(&initrd, archive(&options.kernel)?).map_err(Error::file("write", &initrd))?;
    let mut in_time = true;
    for again in ["", guest::AGAIN] {
        in_time = in_time && once(options, &initrd, &disk, again)?;
    }
    Ok(u8::from(!in_time))
}

/// One boot; whether it came to its end by itself. `again`: the guest's word for the second one.
fn once(options: &Boot, initrd: &Path, disk: &Path, again: &str) -> Result<bool> {
    let work = Path::new(WORK).join(format!("boot{again}"));
    std::fs::create_dir(&work).map_err(Error::file("create", &work))?;
    let [console, said, shared, disk_log] =
        ["console", "said", "shared", "disk-log"].map(|name| work.join(name));
    let [root_socket, disk_socket] = ["root.sock", "disk.sock"].map(|name| work.join(name));
    let mut servers = [
        share(&options.virtiofsd, Path::new("/"), &root_socket, &shared)?,
        share(&options.virtiofsd, disk, &disk_socket, &disk_log)?,
    ];
    let mut qemu = Command::new(QEMU);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", MEMORY, "-smp", "2"]);
    qemu.args(["-machine", "q35,memory-backend=mem", "-object"]);
    qemu.arg(format!("memory-backend-memfd,id=mem,size={MEMORY},share=on"));
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-nic", "none"]);
    for (tag, socket) in [(guest::TAG, &root_socket), (guest::DISK, &disk_socket)] {
        qemu.arg("-chardev").arg(format!("socket,id={tag},path={}", socket.display()));
        qemu.args(["-device", &format!("vhost-user-fs-pci,chardev={tag},tag={tag}")]);
    }
    qemu.arg("-kernel").arg(options.kernel.join(IMAGE)).arg("-initrd").arg(initrd);
    qemu.args(["-append", &format!("console=ttyS0 quiet panic=-1 {LSMS} -- {GUEST_VERB} {again}")]);
    for file in [&console, &said] {
        qemu.arg("-serial").arg(format!("file:{}", file.display()));
    }
    let machine = run::tied(&mut qemu).stdin(Stdio::null()).spawn().map_err(start(QEMU))?;
    let in_time = wait(machine)?;
    // They end with their only client; if not, the sandbox's end ends them.
    for server in &mut servers {
        let _ = server.kill();
        let _ = server.wait();
    }
    let read = |path: &Path| std::fs::read(path).map_err(Error::file("read", path));
    println!("{}", String::from_utf8_lossy(&read(&said)?));
    for (name, file) in [("console", &console), ("virtiofsd", &shared), ("virtiofsd of the disk", &disk_log)]
    {
        let text = String::from_utf8_lossy(&read(file)?).into_owned();
        println!("{name}: {}", text.trim().replace('\n', &format!("\n{name}: ")));
    }
    if !in_time {
        println!("the guest did not end within {} s and was stopped", PATIENCE.as_secs());
    }
    Ok(in_time)
}

/// This program as /init, the modules, and the passwords of the sandbox's users.
fn archive(kernel: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in guest::FOLDERS {
        archive.folder(folder);
    }
    let exe = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe".as_ref()))?;
    archive.program(&exe, "/init")?;
    let modules = kernel.join(LOADED);
    for entry in modules.read_dir().map_err(Error::file("read", &modules))?.flatten() {
        archive.file(&entry.path(), &format!("{}/{}", guest::MODULES, entry.file_name().display()))?;
    }
    let passwords = std::env::vars().filter(|(name, _)| name.ends_with("_PASSWORD"));
    let passwords: String = passwords.map(|(name, password)| format!("{name}={password}\n")).collect();
    archive.content(guest::PASSWORDS, passwords.as_bytes());
    Ok(archive.finish())
}

/// Starts virtiofsd for `folder` on a socket that listens already: nobody has to wait for it.
fn share(virtiofsd: &Path, folder: &Path, socket: &Path, log: &Path) -> Result<Child> {
    let listener = UnixListener::bind(socket).map_err(Error::file("create", socket))?;
    fcntl(listener.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).map_err(|source| Error::Kernel {
        action: "pass on a socket".into(),
        source,
        advice: "try again",
    })?;
    let mut share = Command::new(virtiofsd);
    share.arg(format!("--fd={}", listener.as_raw_fd()));
    if virtiofsd.starts_with(NEW_VIRTIOFSD) {
        share.arg("--shared-dir").arg(folder).args(["--cache", "always", "--sandbox", "chroot"]);
    } else {
        let source = format!("source={}", folder.display());
        share.args(["-o", &source, "-o", "cache=always", "-o", "sandbox=chroot"]);
    }
    let log = std::fs::File::create(log).map_err(Error::file("create", log))?;
    share.stdout(Stdio::null()).stderr(log);
    run::tied(&mut share).stdin(Stdio::null()).spawn().map_err(start(&virtiofsd.to_string_lossy()))
}

/// Waits for the machine's end; whether it came in time.
fn wait(mut machine: Child) -> Result<bool> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(machine.id()).unwrap_or(-1));
    let (tell, told) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let status = machine.wait();
        // Nobody listens any more when it was too late.
        let _ = tell.send(());
        status
    });
    let in_time = told.recv_timeout(PATIENCE).is_ok();
    if !in_time {
        // The waiter has not reaped it: the number is still the machine's, or nobody's.
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    }
    match waiter.join() {
        Ok(status) => status.map_err(start(QEMU)).map(|status| in_time && status.success()),
        Err(_) => Ok(false),
    }
}

fn start(program: &str) -> impl FnOnce(std::io::Error) -> Error {
    let program = program.to_owned();
    move |source| Error::Start { program, source }
}
