//! What the guest's disk has where, and blocks that say by themselves whether they are whole.

/// Bytes of a page and of a block.
pub const BLOCK_BYTES: usize = 4096;
const WORDS: usize = BLOCK_BYTES / 8;
/// Words in front of a block's contents: its place, its version, and their sum.
const HEAD_WORDS: usize = 3;

/// The part of the disk that has files of the host.
pub const FILES_BYTES: usize = 64 << 20;
/// Behind it, blocks that the guest writes.
pub const LOG_BLOCKS: usize = 2048;
/// Of the whole disk.
pub const DISK_BYTES: usize = FILES_BYTES + LOG_BLOCKS * BLOCK_BYTES;
/// Pages of the guest's program.
pub const PAGES: usize = (32 << 20) / BLOCK_BYTES;
/// The first ones are those that it changes.
pub const HOT_PAGES: usize = (4 << 20) / BLOCK_BYTES;

/// A page or block.
pub type Block = [u64; WORDS];

/// The sum of a block's contents: other bytes, or the same at other places, have another one.
fn sum(block: &Block) -> u64 {
    block[HEAD_WORDS..].iter().fold(block[0] ^ block[1].rotate_left(32), |sum, word| {
        (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

/// Makes it the block of this place, in this version.
pub fn seal(block: &mut Block, place: usize, version: u64) {
    block[0] = place as u64;
    block[1] = version;
    block[2] = sum(block);
}

/// What is wrong with the block of a place that should have a version.
pub fn check(block: &Block, place: usize, version: u64) -> Result<(), String> {
    if block[0] != place as u64 || block[1] != version {
        return Err(format!("{place} has place {} and version {}, not {version}", block[0], block[1]));
    }
    if block[2] != sum(block) {
        return Err(format!("{place} in version {version} is damaged"));
    }
    Ok(())
}

/// Changes a few words of a block's contents.
pub fn change(block: &mut Block, random: &mut Random) {
    for _ in 0..8 {
        let at = HEAD_WORDS + random.below(WORDS - HEAD_WORDS);
        block[at] = random.next();
    }
}

/// xorshift: numbers that are the same each time.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_says_whether_it_is_whole() {
        let (mut block, mut random) = ([7; WORDS], Random(1));
        change(&mut block, &mut random);
        seal(&mut block, 3, 9);
        assert_eq!(check(&block, 3, 9), Ok(()));
        assert!(check(&block, 3, 8).is_err() && check(&block, 4, 9).is_err());
        for at in [1, 2, HEAD_WORDS, WORDS - 1] {
            let mut other = block;
            other[at] ^= 1 << 40;
            assert!(check(&other, 3, 9).is_err(), "{at}");
        }
    }
}
