"""The sentences of the stories, scene by scene; the last two of each scene belong to the held-out split.

{n} is the hero, a {m} {kind}; {f} the friend with an animal {a}; {o} the thing it is about; {p} and {p2} places; {w} the
weather; {he} {his} {him} the hero's pronouns, {he_f} {his_f} {him_f} the friend's.
"""

PLACES = """the old harbour|the edge of the forest|a small village|the foot of the mountain|a quiet street|the river
|the end of the valley|a town by the sea|the old mill|the castle gate|the great lake|the baker's shop|the station
|a farm on the hill|the lighthouse|the market square|a bridge in the south|an island in the north""".replace("\n", "").split("|")
WEATHER = """the sun was shining|it was raining softly|a cold wind blew from the sea|snow was falling|the fog lay over the fields
|the sky was clear and blue|dark clouds came over the hills|the wind sang in the trees|the moon stood over the roofs
|the rain had just stopped|it was warm and still|the first leaves were falling|the air smelled of salt|a storm was on its way""".replace("\n", "").split("|")
MOODS = "curious careful cheerful patient quiet brave friendly stubborn clever shy gentle lonely young old small".split()
# What a story can be about beside its hero and its thing.
THEMES = "friendship courage patience kindness honesty luck hope home trust help".split()

OPENINGS = (
    "[Once upon a time|Many years ago|A long time ago], a {m} {kind} called {n} lived [near|not far from] {p}.",
    "There was once a {m} {kind} called {n} who lived [near|close to] {p}.",
    "{n} was a {m} {kind}, and {his} home was [near|close to] {p}.",
    "Everybody [near|around] {p} knew {n}, a {m} {kind}.",
    "In a house near {p} lived {n}, a {m} {kind}.",
    "{n} the {kind} was {m}, and {he} had always lived near {p}.",
    "[Nobody|No one] near {p} was as {m} as {n} the {kind}.",
    "Not far from {p} stood a small house, and in it lived a {m} {kind} called {n}.",
)
OWNERSHIP = (
    "{n} had [an old|a small|a beautiful|a strange] {o} that {he} loved more than anything else.",
    "The best thing {n} had was [an old|a small|a beautiful] {o}.",
    "{his_cap} grandmother had left {him} [an old|a small|a strange] {o}.",
    "Every morning {n} looked at the {o} on {his} table and was happy.",
    "On a shelf in {his} room stood [an old|a small] {o}, a gift from {his} grandfather.",
    "{n} never went out without {his} {o}.",
    "What {n} loved most was [an old|a small] {o} from {his} father.",
    "Above everything {n} loved the {o} that {his} grandmother had left.",
)
DAYS = (
    "One [morning|day|evening], {w}, and {n} went for a walk.", "One [morning|day], when {w}, {n} woke up early.",
    "Then came a day that {n} would never forget. {w_cap}.", "On a [Monday|Friday|Sunday] in {month}, {w}.",
    "It was [early|late] in {month}, and {w}.", "One evening {n} sat at the window while {w}.",
    "It happened in {month}, when {w}.", "One day in {month}, while {w}, {n} went out early.",
)
PROBLEMS = (
    "Suddenly {he} saw that the {o} was gone.", "When {he} came home, the {o} was not in its place.",
    "But the {o} had disappeared in the night.", "{he_cap} reached for the {o}, but it was not there.",
    "Someone had taken the {o} and left the door open.", "Then {n} noticed that {he} had lost {his} {o}.",
    "Somewhere on the way {he} had lost the {o}.", "That day the {o} was nowhere to be found.",
    "{n} looked at the table, and the {o} was not there.", "In the night someone had taken {his} {o}.",
)
FEELINGS = (
    "{n} was sad and did not know what to do.", "At first {n} wanted to cry, but then {he} took a deep breath.",
    '"This cannot be," said {n}, and {he} sat down.',
    "{n} looked under the bed, behind the door and in the garden, but found nothing.",
    "{he_cap} could not eat, and {he} could not sleep.", '"Who would do such a thing?" {n} asked.',
    "{n} sat down behind the door and was very sad.", '"What shall I do now?" asked {n}.',
)
MEETINGS = (
    "On the way {he} met {f}, who had a {a}.", "{f}, a neighbour with a {a}, heard about it and came to help.",
    "At {p2} {he} met {f}, who had a {a}, and told {him_f} everything.",
    'Then {f} knocked at the door. "My {a} and I will help you," {he_f} said.',
    "{f} was just feeding the {a} when {n} came by.", "{he_cap} asked {f}, who knew everybody and had a {a}.",
    "At the door stood {f} with a {a}, who wanted to help.", "Near {p2} stood {f}, and {n} told everything.",
)
SPEECHES = (
    '"Do not worry," said {f}. "We will find it together."', '"I have seen something near {p2}," said {f}.',
    '"My {a} has a very good nose," {f} said. "Let us try."', '"Have you looked near {p2}?" asked {f}.',
    '"Tell me what happened," said {f}, "from the beginning."', '"Two can see more than one," said {f}.',
    '"Let us look near {p2} together," said {f}.', '"Tell my {a} what happened," said {f}.',
)
SEARCHES = (
    "So they walked to {p2}, and the {a} ran ahead of them.", "They looked all day, first near {p}, then near {p2}.",
    "The way was long, and {w2}, but they did not give up.", "They asked everybody they met, but nobody had seen the {o}.",
    "For hours they followed the small marks on the ground.", "Together they climbed over stones and walked through high grass.",
    "The {a} stopped, looked back and waited for them.", "All day they followed the {a} over the stones.",
    "First they walked to {p2}, then they asked everybody.",
)
FINDS = (
    "At last the {a} stopped in front of a tree. Under it lay the {o}.", "And there, between two stones, lay the {o}.",
    "In the window of a little shop they saw the {o}.",
    'A child was sitting on the ground and playing with the {o}. "I found it," said the child.',
    "Then {f} laughed and pointed up: a bird had carried the {o} into its nest.",
    "Behind an old door they found the {o}, covered with dust.", "There it was, the {o}, as if nothing had happened.",
    "Behind a tree, covered with grass, lay the {o}.", "The {a} stopped at an old door, and there was the {o}.",
)
ENDINGS = (
    "{n} thanked {f}, and from that day on they were friends.", "They went home together, drank tea and talked until late at night.",
    '"Thank you," said {n}. "Without you I would never have done it."', "{n} slept well that night.",
    "Since then {n} has often visited {f} and the {a}.", "And when {n} looks at the {o} today, {he} thinks of {f}.",
    "{he_cap} gave the {a} a big piece of {food}, for it had earned it.",
    "That night {n} and {f} were friends and drank tea.", "Since that day {n} often thinks of {f} and the {a}.",
)
# The second plot: a wish for a thing that must be made.
WISHES = (
    "All {his} life {n} had wished for a {o}.", "There was one thing {n} wanted: a {o} of {his} own.",
    "{n} dreamed of a {o} every night.", "Other people had a {o}, but {n} had none, and money was short.",
    '"One day I will have a {o}," {n} used to say.', "In a shop window {n} had seen a {o}, and {he} could not forget it.",
    "What {n} wanted most was a {o}.", "Every night {n} thought of the {o} in a shop window.",
)
TRIALS = (
    '"Then I will make a {o} myself," said {n}.', "So {he} took wood, paper and glue and began to build a {o}.",
    "{he_cap} collected old things from the attic and started to work on a {o}.",
    "For seven days {n} worked on the {o}, from morning to night.", "{he_cap} made a drawing of the {o} and bought some nails.",
    "{n} read in a book how to make a {o}, and began.",
    '"I will build a {o}," said {n}, and {he} began with wood.', "From morning to night {n} worked with wood and nails.",
)
FAILURES = (
    "But the {o} fell apart at the first touch.", "But what {he} made did not look like a {o} at all.",
    "The first {o} was too big, and the second was too small.", "In the evening {n} looked at the pieces and sighed.",
    "Nothing fitted, and {n} was tired.", "But each time something broke.",
    "But the first {o} was too big, and something broke.", "{n} was tired, for nothing fitted at all.",
)
ADVICE = (
    '"Show me your {o}," said {f}. "I have an idea."', '"You are in a hurry," said {f}. "Begin with the small parts."',
    '"My uncle made such things," {f} said. "I know how it is done."', '"Try it once more," said {f}, "but slowly."',
    "{f} looked at the {o} for a long time and then took a pencil.", '"You need better wood," said {f}. "There is some near {p2}."',
    '"Begin once more," said {f}, "with better wood."', '"I know how such a {o} is done," said {f}.',
)
WORK = (
    "They worked side by side, and the {a} watched them.", "One held the wood, the other used the hammer.",
    "They fetched what they needed from {p2}, although {w2}.", "Sometimes the {a} carried a nail or a string.",
    "Day after day it looked more like a {o}.", "When something broke, they laughed and began again.",
    "The {a} watched while they used the hammer.", "Side by side they worked, day after day.",
)
SUCCESSES = (
    "In {month} the {o} was ready, and it was beautiful.", "At last {n} held {his} own {o} in {his} hands.",
    "And then it stood on the table: a real {o}.", "Everybody came to see the {o} that {n} had made.",
    'The {o} was not perfect, but it was {his} own. "I made it," said {n}.', "When it was done, even the {a} was excited about the {o}.",
    "At last the {o} stood on the table, and everybody came.", "It was done: {n} had {his} own {o}.",
)
# The third plot: somebody is in danger.
CRIES = (
    "Suddenly {he} heard a cry from {p2}.", '"Help!" somebody called near {p2}.', "Near {p2} a child was calling for help.",
    "Then the bells began to ring: there was danger near {p2}.", "All at once {he} saw smoke over {p2}.",
    "From far away came a thin voice that called for help.",
    "All at once somebody called for help near {p2}.", "Suddenly there was a thin voice from {p2}.",
)
RUSHES = (
    "{n} took {his} {o} and ran as fast as {he} could.", "There was no time to think. {n} ran, with the {o} under {his} arm.",
    '"I am coming!" called {n}, and took only the {o} with {him}.', "{he_cap} dropped everything but the {o} and hurried there.",
    "Without a word {n} took the {o} from the wall and left.", "{n} was afraid, but {he} took the {o} and went.",
    "{n} called and ran, and {he} had only the {o} with {him}.", "Without the {o} {n} went nowhere, so {he} took it and ran.",
)
DANGERS = (
    "There was {f} with a {a}, and the water around them was rising.", "{f} and a {a} sat on a roof and could not come down.",
    "A {a} had fallen into a deep hole, and {f} stood beside it and cried.", "{f} was holding a {a} over the dark water.",
    "In the snow sat {f} with a {a}, too weak to go on.", "The {a} of a neighbour called {f} was caught under a tree.",
    "On a roof sat {f} with a {a}, and the water was rising.", "{f} sat beside a deep hole with a {a}.",
)
RESCUES = (
    "With the {o} in one hand {n} reached out and pulled.", "It was the {o} that saved them: it was just long enough.",
    '"Hold on to the {o}!" called {n}, and they held on.', "{n} laid the {o} down like a bridge, and one after the other they came across.",
    "{he_cap} made so much noise with the {o} that all the neighbours came running.", "Nobody had thought of the {o}, but {n} knew what to do with it.",
    '"Hold on!" called {n}, and reached out with the {o}.', "All the neighbours came, and the {o} was just long enough.",
)
RELIEFS = (
    "Soon everybody was safe and dry.", '"You saved my {a}," said {f}.', "{f} could not speak for joy.", "The {a} shook itself and licked {his} hand.",
    "The danger was over, and they sat down in the grass.", '"I only did what I could," said {n}.',
    "{f} sat down in the grass for joy.", "Soon the {a} was dry, and the danger was over.",
)
MORALS = (
    "A friend is worth more than any {o}.", "So {n} learned that it is good to ask for help.", "{n} told this story to everyone {he} met.",
    "And they all lived happily near {p}.", "That is the end of the story.", "{n} never told anyone how afraid {he} had been.",
    "So {n} found a friend worth more than a {o}.", "It is good to have a friend who will help.",
)
THEME_MORALS = (
    "So {n} learned what {theme} is worth.", "That is a story about {theme}.", '"It is all about {theme}," said {n}.',
    "Since then {n} has believed in {theme}.", "Without {theme} it would have ended badly.", "And that is what {theme} can do.",
    "All this {n} learned about {theme}.", "So it ended well, by {theme}.",
)
LINKS = (
    "But that was not the end.", "A few [days|weeks|months] later something new happened.", "The next [morning|day|spring] everything was different.",
    "[Soon|Before long] there was more to tell.", "[Winter|Spring|Summer|Autumn] came and went.", "After that, life near {p} was quiet for a while.",
    "The story did not stop there.", "[Some days|Weeks] later there was something new near {p}.",
)
GIFTS = (
    "By then {n} also had a {o}.", "On {his} birthday {n} got a {o}.", "{n} had bought a {o} at the market.", "Now {n} had a new treasure, a {o}.",
    "In the attic {n} had found a {o}.", "A traveller had left a {o} with {n}.",
    "At the market {n} found a {o}.", "A traveller had left {him} a {o} for {his} birthday.",
)
INTERLUDES = (
    "They sat down and ate {food}.", "Far away a dog was barking.", "The {a} slept in the grass.",
    "{n} sang a song that {his} mother had taught {him}.", "Nobody said a word for a long time.",
    "The light was getting weak, and the shadows grew long.", "{f} told a story about {his_f} childhood near {p2}.",
    "A cart with {food} rolled by, and the driver waved.", '"Are you tired?" asked {f}. "Not at all," said {n}.',
    "Over {p2} the moon came up.", "It smelled of {food} and of wet grass.",
    "{f} said nothing and looked at the {a}.", "They ate {food} near {p2} and sang a song.",
)
# A plot is paragraphs of scenes: the first of a story, and a later one of a long story.
PLOTS = (
    ((OWNERSHIP, DAYS, PROBLEMS, FEELINGS), (MEETINGS, SPEECHES, SEARCHES), (FINDS, ENDINGS)),
    ((WISHES, DAYS, TRIALS, FAILURES), (MEETINGS, ADVICE, WORK), (SUCCESSES, ENDINGS)),
    ((OWNERSHIP, DAYS, CRIES, RUSHES), (DANGERS, RESCUES, RELIEFS), (ENDINGS,)),
)
