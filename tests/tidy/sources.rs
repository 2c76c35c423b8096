//! The sources as the compiler sees them: what each file names, and where these names lead.
//!
//! Files are parsed whole, and what only tests have is taken out. A name is followed to the file that
//! has it: through `use`, `super`, and what a module hands on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, ImplItem, Item, UseTree, Visibility};

/// The crates that are held: where their sources are, and what others call them.
const CRATES: [(&str, &str); 5] = [
    ("src", "crate"),
    ("clock/src", "logferry_clock"),
    ("mock/src", "logferry_mock"),
    ("trim/src", "logferry_trim"),
    ("wire/src", "logferry_wire"),
];

/// Where a path leads: the crate first, `crate` for the agent's.
pub(crate) type Names = Vec<String>;

/// A file of the sources.
pub(crate) struct Source {
    /// Its name in the table: `tail::registry`, `tail` for `tail/mod.rs`, `logferry_mock::store`.
    pub(crate) module: String,
    pub(crate) path: PathBuf,
    /// Whether it begins with `//!`.
    pub(crate) has_doc: bool,
    /// Whether a program wrote it, and nobody reads it.
    pub(crate) is_generated: bool,
    /// Methods and macros that are called: `exists`, `println!`.
    pub(crate) calls: BTreeSet<String>,
    /// All doc comments, those of tests too.
    pub(crate) docs: Vec<String>,
    /// As others name it: `["crate", "tail", "registry"]`.
    place: Names,
    /// The modules below it.
    children: BTreeSet<String>,
    /// What `use` brings in: the name here, and where it leads.
    uses: BTreeMap<String, Names>,
    /// Names among these that others get from here.
    handed_on: BTreeSet<String>,
    /// Paths in the code, as they are written.
    paths: Vec<Names>,
}

/// All files of the house.
pub(crate) struct Sources(Vec<Source>);

impl Sources {
    /// The sources, read once.
    pub(crate) fn all() -> &'static Self {
        static ALL: LazyLock<Sources> = LazyLock::new(Sources::read);
        &ALL
    }

    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut sources = Vec::new();
        for (folder, name) in CRATES {
            let base = root.join(folder);
            let mut files = Vec::new();
            list(&base, &mut files);
            files.sort();
            sources.extend(files.iter().map(|file| Source::read(&base, name, file)));
        }
        assert!(sources.len() > 150, "the sources are found");
        Self(sources)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// The modules of the house that a file depends on.
    pub(crate) fn imports(&self, source: &Source) -> BTreeSet<&str> {
        let modules = source.named().filter_map(|path| self.module_of(&path, 0));
        modules.filter(|module| *module != source.module).collect()
    }

    /// What a file names of the modules that are `wanted`.
    pub(crate) fn names_of(&self, source: &Source, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let is_wanted = |path: &Names| {
            let module = self.module_of(path, 0).filter(|module| *module != source.module);
            module.is_some_and(&wanted)
        };
        source.named().filter(is_wanted).map(|path| path.join("::")).collect()
    }

    /// The module that has what a path names; `None` where another crate has it.
    fn module_of(&self, path: &[String], depth: usize) -> Option<&str> {
        assert!(depth < 8, "{path:?} is handed on in a circle");
        let found = (1..=path.len()).rev().find_map(|length| {
            let source = self.0.iter().find(|source| source.place == path[..length]);
            source.map(|source| (source, &path[length..]))
        });
        let (source, behind) = found?;
        let Some((name, behind)) = behind.split_first() else { return Some(&source.module) };
        let Some(leads) = source.uses.get(name) else { return Some(&source.module) };
        let path: Names = leads.iter().chain(behind).cloned().collect();
        self.module_of(&path, depth + 1)
    }
}

impl Source {
    fn read(base: &Path, crate_name: &str, path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let file = syn::parse_file(&text);
        let mut file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(base).unwrap().with_extension("");
        let name = name.to_string_lossy().replace('/', "::");
        let name = name.trim_end_matches("::mod");
        let inside = name.split("::").filter(|part| *part != "lib");
        let place: Names = std::iter::once(crate_name).chain(inside).map(str::to_owned).collect();
        let module = match crate_name {
            "crate" => name.to_owned(),
            _ => place.join("::"),
        };
        let mut source = Self {
            module,
            path: path.to_owned(),
            has_doc: text.starts_with("//! "),
            is_generated: text.starts_with("// This file is @generated"),
            calls: BTreeSet::new(),
            docs: Vec::new(),
            place,
            children: BTreeSet::new(),
            uses: BTreeMap::new(),
            handed_on: BTreeSet::new(),
            paths: Vec::new(),
        };
        take_docs(file.to_token_stream(), &mut source.docs);
        remove_tests(&mut file.items);
        source.take_items(file.items);
        source
    }

    /// Everything that the code names and that is not its own, where it leads.
    pub(crate) fn named(&self) -> impl Iterator<Item = Names> {
        // What is only handed on is nothing that this file depends on.
        let used = self.uses.iter().filter(|(name, _)| !self.handed_on.contains(*name));
        let used = used.map(|(_, path)| path.clone());
        used.chain(self.paths.iter().filter_map(|path| self.leads(path)))
    }

    /// Where a path leads; `None` if it begins with a name of this file.
    fn leads(&self, path: &[String]) -> Option<Names> {
        let (first, behind) = path.split_first()?;
        let before = match first.as_str() {
            "crate" => vec![self.place[0].clone()],
            // The binary beside the library.
            "logferry" => vec!["crate".to_owned()],
            "self" => self.place.clone(),
            "super" => self.place[..self.place.len() - 1].to_vec(),
            _ if self.uses.contains_key(first) => self.uses[first].clone(),
            _ if !behind.is_empty() && self.children.contains(first) => {
                [&self.place[..], &path[..1]].concat()
            }
            // Another crate.
            _ if !behind.is_empty() && first.starts_with(char::is_lowercase) => path[..1].to_vec(),
            _ => return None,
        };
        Some(before.into_iter().chain(behind.iter().cloned()).collect())
    }

    fn take_items(&mut self, items: Vec<Item>) {
        // A path may begin with a name that a later `use` brings in.
        let (uses, others): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| matches!(item, Item::Use(_)));
        for item in &others {
            if let Item::Mod(module) = item
                && module.content.is_none()
            {
                self.children.insert(module.ident.to_string());
            }
        }
        for item in uses {
            let Item::Use(item) = item else { continue };
            let is_handed_on = !matches!(item.vis, Visibility::Inherited);
            self.take_use(&item.tree, Vec::new(), is_handed_on);
        }
        for item in others {
            match item {
                Item::Mod(module) if module.content.is_none() => {}
                item => self.take_code(item.into_token_stream()),
            }
        }
    }

    fn take_use(&mut self, tree: &UseTree, mut path: Names, is_handed_on: bool) {
        let (last, name) = match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                return self.take_use(&part.tree, path, is_handed_on);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.take_use(tree, path.clone(), is_handed_on);
                }
                return;
            }
            UseTree::Name(last) => (last.ident.to_string(), last.ident.to_string()),
            UseTree::Rename(last) => (last.ident.to_string(), last.rename.to_string()),
            UseTree::Glob(_) => {
                // Which names of a module it brings in cannot be seen here; those of an enum are its own.
                let is_of_enum =
                    path.last().is_some_and(|last| last.starts_with(char::is_uppercase));
                let path_shown = path.join("::");
                assert!(is_of_enum, "{}: `use {path_shown}::*`", self.path.display());
                ("self".to_owned(), "self".to_owned())
            }
        };
        let name = match (last.as_str(), name.as_str()) {
            ("self", "self") => path.last().expect("`self` stands in a list").clone(),
            // A trait that is there for its methods has no name; two of these are two.
            (_, "_") => format!("{} as _", path.join("::")),
            _ => name,
        };
        if last != "self" {
            path.push(last);
        }
        let leads = self.leads(&path).unwrap_or(path);
        if is_handed_on {
            self.handed_on.insert(name.clone());
        }
        self.uses.insert(name, leads);
    }

    /// Finds paths and calls in the code.
    fn take_code(&mut self, code: TokenStream) {
        let mut words = Vec::new();
        take_words(code, &mut words);
        let is_name = |word: &String| word.starts_with(|c: char| c.is_alphabetic() || c == '_');
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let mut at = 0;
        while at < words.len() {
            // In a function; `use<…>` is of a type.
            if words[at] == "use" && word(at + 1) != "<" {
                let length = words[at..].iter().position(|word| word == ";");
                let end = at + length.expect("a `use` has an end") + 1;
                let item: syn::ItemUse = syn::parse_str(&words[at..end].join(" ")).unwrap();
                self.take_use(&item.tree, Vec::new(), false);
                at = end;
                continue;
            }
            let before = if at > 0 { word(at - 1) } else { "" };
            let mut path = vec![words[at].clone()];
            at += 1;
            if !is_name(&path[0]) {
                continue;
            }
            while word(at) == "::" && words.get(at + 1).is_some_and(is_name) {
                path.push(words[at + 1].clone());
                at += 2;
            }
            match before {
                "." if word(at) == "(" => self.calls.extend(path),
                // A field, a lifetime, `pub(super)`, and `self`.
                "." | "'" => {}
                _ if path.len() == 1 && ["crate", "super", "self"].contains(&path[0].as_str()) => {}
                _ => {
                    if word(at) == "!" && ["(", "[", "{"].contains(&word(at + 1)) {
                        self.calls.extend(path.last().map(|name| format!("{name}!")));
                    }
                    self.paths.push(path);
                }
            }
        }
    }
}

/// Takes out what only tests have.
fn remove_tests(items: &mut Vec<Item>) {
    items.retain(|item| !is_for_tests(item_attributes(item)));
    for item in items {
        match item {
            Item::Mod(module) => {
                if let Some((_, items)) = &mut module.content {
                    remove_tests(items);
                }
            }
            Item::Impl(block) => block.items.retain(|item| match item {
                ImplItem::Const(item) => !is_for_tests(&item.attrs),
                ImplItem::Fn(item) => !is_for_tests(&item.attrs),
                _ => true,
            }),
            _ => {}
        }
    }
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.to_token_stream().to_string() == "# [cfg (test)]")
}

/// The code as words: names, `::`, `..`, other signs one by one; literals are left out.
fn take_words(code: TokenStream, words: &mut Vec<String>) {
    let mut is_joint = false;
    for token in code {
        let was_joint = std::mem::take(&mut is_joint);
        match token {
            TokenTree::Ident(name) => words.push(name.to_string()),
            TokenTree::Literal(_) => words.push(String::new()),
            TokenTree::Punct(sign) => {
                let sign_is_joint = sign.spacing() == Spacing::Joint;
                let sign = sign.as_char();
                match words.last_mut() {
                    Some(last)
                        if was_joint
                            && [":", "."].contains(&last.as_str())
                            && last.starts_with(sign) =>
                    {
                        last.push(sign);
                    }
                    _ => {
                        words.push(sign.to_string());
                        is_joint = sign_is_joint;
                    }
                }
            }
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                words.push(open.to_owned());
                take_words(group.stream(), words);
                words.push(close.to_owned());
            }
        }
    }
}

/// The doc comments, each as one text with its line ends. That of a module (`//!`) and that of its first
/// item are two.
fn take_docs(code: TokenStream, docs: &mut Vec<String>) {
    let (mut is_inner, mut last) = (false, None);
    for token in code {
        match token {
            TokenTree::Punct(sign) if sign.as_char() == '#' => is_inner = false,
            TokenTree::Punct(sign) if sign.as_char() == '!' => is_inner = true,
            TokenTree::Group(group) => {
                let line = syn::parse2::<syn::MetaNameValue>(group.stream()).ok();
                let line = line.filter(|line| line.path.is_ident("doc")).map(|line| line.value);
                if let Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(line), .. })) = line {
                    match docs.last_mut().filter(|_| last == Some(is_inner)) {
                        Some(doc) => *doc = format!("{doc}\n{}", line.value()),
                        None => docs.push(line.value()),
                    }
                    last = Some(is_inner);
                } else {
                    last = None;
                    take_docs(group.stream(), docs);
                }
            }
            _ => last = None,
        }
    }
}

/// All Rust files below, but for those that hold nothing but tests.
fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_tests =
            path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
        if is_tests {
            continue;
        }
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
