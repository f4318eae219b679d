//! The real loader on the running kernel: each test in a mount namespace and a bpffs of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod bpffs;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use bpffs::with_bpffs;
use nix::mount::{MsFlags, mount};
use portcullis_agent::kernel::{self, KernelError, Loaded, Slice, Tables};
use portcullis_common::abi;
use portcullis_common::ledger::Rule;

fn inode(path: &str) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn pins_are_roots_alone() {
    with_bpffs(|| {
        assert_eq!(kernel::load(kernel::OBJECT).unwrap(), Loaded::Fresh);
        for folder in [abi::PIN_ROOT, abi::PIN_DIR] {
            assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o7777, 0o700, "{folder}");
        }
        let pins = kernel::pin_states().unwrap();
        assert_eq!(pins.len(), 16, "thirteen maps, the gate, two exit links: {pins:?}");
        for pin in pins {
            assert_eq!((pin.mode, pin.uid), (0o600, 0), "{}", pin.path.display());
        }
    });
}

#[test]
fn a_second_load_keeps_the_tables_and_replaces_the_gate() {
    with_bpffs(|| {
        kernel::load(kernel::OBJECT).unwrap();
        let settings = Tables::open().unwrap().settings().unwrap();
        assert_ne!(settings.hash_key, [0, 0]);
        assert_eq!(settings.generation, 1);
        let (accounts, gate) =
            (inode("/sys/fs/bpf/portcullis/v1/ACCOUNTS"), inode("/sys/fs/bpf/portcullis/v1/gate"));
        assert_eq!(kernel::load(kernel::OBJECT).unwrap(), Loaded::Replaced);
        assert_eq!(Tables::open().unwrap().settings().unwrap(), settings);
        assert_eq!(inode("/sys/fs/bpf/portcullis/v1/ACCOUNTS"), accounts);
        assert_ne!(inode("/sys/fs/bpf/portcullis/v1/gate"), gate);
        assert!(!Path::new("/sys/fs/bpf/portcullis/v1/gate_next").exists());
    });
}

#[test]
fn a_configuration_is_written_beside_the_running_one() {
    with_bpffs(|| {
        kernel::load(kernel::OBJECT).unwrap();
        let mut tables = Tables::open().unwrap();
        let strict = Rule { deny: 2, ..Rule::DEFAULT };
        let first = tables.write_config(&[Rule::DEFAULT, strict], &[(2002, 1)]).unwrap();
        assert!(tables.has_config(&[Rule::DEFAULT, strict], &[(2002, 1)]).unwrap());
        assert!(!tables.has_config(&[strict, strict], &[(2002, 1)]).unwrap());
        assert!(!tables.has_config(&[Rule::DEFAULT, strict], &[]).unwrap());
        let second = tables.write_config(&[strict], &[(2001, 0), (2003, 0)]).unwrap();
        assert_eq!(second, first + 1);
        assert!(tables.has_config(&[strict], &[(2001, 0), (2003, 0)]).unwrap());
        tables.add_member(2004, 0).unwrap();
        assert!(tables.has_config(&[strict], &[(2001, 0), (2003, 0), (2004, 0)]).unwrap());
        let too_many = vec![Rule::DEFAULT; 33];
        assert!(matches!(tables.write_config(&too_many, &[]), Err(KernelError::TooMany { count: 33, .. })));
        assert!(tables.has_config(&[strict], &[(2001, 0), (2003, 0), (2004, 0)]).unwrap());
    });
}

#[test]
fn fresh_tables_are_empty() {
    with_bpffs(|| {
        kernel::load(kernel::OBJECT).unwrap();
        let tables = Tables::open().unwrap();
        assert_eq!(tables.each_row(Slice::Accounts, |row| panic!("{row:?}")).unwrap(), 0);
        assert_eq!(tables.each_row(Slice::Unknown, |row| panic!("{row:?}")).unwrap(), 0);
        assert_eq!(tables.each_row(Slice::Pairs, |row| panic!("{row:?}")).unwrap(), 0);
        assert_eq!(tables.stats().unwrap().lost_events, 0);
        assert!(tables.occupancy().unwrap().iter().all(|table| table.used == 0 && table.limit > 0));
    });
}

#[test]
fn pins_of_another_version_are_refused() {
    with_bpffs(|| {
        fs::create_dir_all("/sys/fs/bpf/portcullis/v999").unwrap();
        let error = kernel::load(kernel::OBJECT).unwrap_err();
        assert!(matches!(&error, KernelError::OtherVersion { path } if path.ends_with("v999")), "{error}");
        assert!(error.to_string().contains("rm -r /sys/fs/bpf/portcullis/v999"));
        assert!(!kernel::gate_pinned());
    });
}

#[test]
fn a_pin_of_another_shape_is_refused() {
    with_bpffs(|| {
        kernel::load(kernel::OBJECT).unwrap();
        fs::rename("/sys/fs/bpf/portcullis/v1/SETTINGS", "/sys/fs/bpf/portcullis/v1/other").unwrap();
        fs::rename("/sys/fs/bpf/portcullis/v1/STATS", "/sys/fs/bpf/portcullis/v1/SETTINGS").unwrap();
        let error = kernel::load(kernel::OBJECT).unwrap_err();
        assert!(matches!(error, KernelError::WrongPin { .. }), "{error}");
        assert!(error.to_string().contains("v1/SETTINGS"), "{error}");
    });
}

#[test]
fn without_bpffs_one_line_says_what_to_do() {
    with_bpffs(|| {
        nix::mount::umount("/sys/fs/bpf").unwrap();
        let none: Option<&str> = None;
        mount(Some("none"), "/sys/fs/bpf", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let error = kernel::load(kernel::OBJECT).unwrap_err().to_string();
        assert_eq!(error, "no bpffs at /sys/fs/bpf: mount -t bpf bpf /sys/fs/bpf");
    });
}

#[test]
fn without_pins_the_tables_say_how_to_make_them() {
    with_bpffs(|| {
        let error = Tables::open().err().unwrap();
        assert!(matches!(error, KernelError::NoGate { .. }));
        assert!(error.to_string().contains("portcullisd gate"));
    });
}
