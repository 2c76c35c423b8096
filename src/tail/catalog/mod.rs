//! What every file is that is found, known, or missed.
//!
//! | rule | seen | then |
//! |---|---|---|
//! | allowed | the settings do not find the path by which it was known, or exclude that or its present name | it is left alone, and that is said |
//! | same file | same device and inode, births not different, head and tail as they were | go on at the offset |
//! | used inode | same device and inode, another birth | another file; the old one was removed |
//! | rewritten | same device and inode, other bytes | from the first byte |
//! | moved disk | another device; same inode and birth, and the bytes; or the same path, or the same inode with no birth known, and a whole head and tail | go on at the offset |
//! | few bytes | another device, same inode or path, and fewer bytes than that | from the first byte |
//! | copy of what is there | head and last bytes of a known file that still has them, and the name of a generation of it | it waits for at most a minute; then it is a file of its own |
//! | copy of what went | head and tail of bytes that went away after it was born, or compressed; a whole head and tail, unless it has the name of a generation and stands beside them or where no log of their name lives | go on behind what was delivered of them |
//! | missed | born since the last look, under the name of a generation of a file that was rotated; beside it, below it, or where an earlier generation went | shipped under its path |
//! | anything else | | from the first byte |
//!
//! A *whole* head is 1,024 bytes and a whole tail 256. What is not known, such as a birth on a file
//! system without one, proves nothing. [`judge`] has the rules, [`names`] what a name says.

pub mod index;
pub mod judge;
pub mod names;
