//! A root folder with users of its own, for the programs of shadow (`--root`).

/// The folder: root, and the given users, each with the fields of its line in shadow(5) that follow the name; none where
/// we are not root, which `program` needs to be.
pub fn root<'a>(
    program: &str,
    users: impl IntoIterator<Item = (&'a str, String)>,
) -> Option<tempfile::TempDir> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root ({program} --root)");
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let mut passwd = String::from("root:x:0:0::/root:/bin/sh\n");
    let mut shadow = String::from("root:*:19000:0:99999:7:::\n");
    for (uid, (name, fields)) in (1001..).zip(users) {
        passwd.push_str(&format!("{name}:x:{uid}:{uid}::/:/bin/sh\n"));
        shadow.push_str(&format!("{name}:{fields}\n"));
    }
    let write = |name: &str, text: &str| std::fs::write(etc.join(name), text).unwrap();
    write("passwd", &passwd);
    write("shadow", &shadow);
    write("group", "root:x:0:\n");
    write("login.defs", "");
    Some(root)
}
