"""Prose unlike anything the shipped models have read: a story, a recipe, a letter, a match report, ...

Written for this purpose, so that it is nobody else's and no Python carries it.
"""

TEXTS = (
    "The lighthouse keeper had not spoken to anyone for eleven days when the boat came round the point. "
    "She put down the kettle, wiped her hands and walked out into the wind, counting the sailors on deck. "
    "There were four of them, and one was waving a red scarf as if the island might not have noticed.",
    "Peel the onions and slice them as thinly as you can. Melt the butter in a heavy pan, add the onions "
    "with a pinch of salt, and let them soften over a low flame for three quarters of an hour. Do not hurry "
    "them. When they are the colour of honey, pour in a glass of dry cider and scrape the bottom.",
    "Dear Marta, thank you for the photographs. The children have grown so much that I took the taller one "
    "for your sister. Here it has rained since Easter, the river is over the lower field, and old Anton says "
    "he has not seen so many herons since the year the bridge was washed away.",
    "With seven minutes left the visitors were still a goal behind. Then Okafor, who had hardly touched the "
    "ball all afternoon, took it on his chest at the halfway line, turned past two defenders and hit it low "
    "into the far corner. The stand behind the goal emptied on to the pitch.",
    "Nobody knows who planted the walnut trees along the old road to the mill. The oldest is hollow, and "
    "every spring a pair of owls raises its young in the trunk, three metres above the carts and the "
    "bicycles. In autumn the whole village comes with baskets and long poles, and nobody keeps count.",
    "Your blood pressure is a little high, but nothing to lose sleep over. Walk for half an hour each day, "
    "leave the salt cellar in the cupboard, and come back in three months. If you feel dizzy when you stand "
    "up, sit down again, wait a moment and then telephone the surgery.",
    "The train to the coast leaves at twenty past nine from platform four. Passengers for the islands should "
    "sit in the front two carriages, because the rear of the train is taken off at the junction. There is no "
    "buffet today; tea is sold from a trolley as far as the junction only.",
    "She learned the violin from her grandfather, who had learned it from a travelling tinker, who would "
    "never say where he had got his tunes. Most of them had no names. She called them after the places where "
    "she first played them: the ferry, the empty shop, the wedding in the snow.",
    "In the third year of the drought the council sold the fountain. It went to a hotel in the capital, "
    "where it ran day and night in a hall of black marble, and people from our valley who had business in "
    "the city used to go in, sit down beside it for a while and drink nothing.",
    "Good evening. Snow is falling on the higher ground and will reach the towns by midnight. Drivers are "
    "asked to stay at home unless the journey cannot wait. Tomorrow will be bright and very cold, with a "
    "sharp wind from the north east, and the first mild air is not expected before Thursday.",
    "The bear did not want the honey. He wanted company, and the bees were the only creatures in the forest "
    "who did not run when they saw him. So every morning he sat beneath their tree and told them his dreams, "
    "and every morning they hummed, which he took for an answer.",
    "Before you paint the door, take it off its hinges and lay it across two trestles. Sand it with the "
    "grain, wipe off the dust with a damp cloth and let it dry. Two thin coats are better than one thick "
    "one. Leave the first overnight, rub it down lightly, and brush out the second from the middle to the "
    "edges.",
)

OF_SPLIT = {"dev": TEXTS[8:], "test": TEXTS[:8]}
"""Settings are chosen on the first, figures come from the second."""
